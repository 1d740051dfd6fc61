"""What every format stands on. Knows no format.

place        a path of this machine or one of a server, and what is asked of either
patience     how long a server is waited for
http         one request to a web server, bounded
whole        all of a file that its server gives only so
web          files of a web server, by ranges
hub          repositories of the Hugging Face Hub
store        object stores, and whatever else fsspec knows
places       which of these a text means
open         only what is safe
beginning    the first bytes, by which a format is told
at_once      the same question of several files
stream       what is open, as other libraries read
strict_json  JSON as a trust boundary
index        which shard holds what
request      what may be asked of a source
budget       how many bytes may be on their way at a time
gaps         what lies near to each other, far away
pieces       leaves cut into what one thread reads at a time
intact       whether what was read is what was written
read         bytes into aligned buffers, ahead of who asks
msgpack      arrays in msgpack, as Flax and early Orbax write them: the values
msgpack_tree     their names, and how they are read
regions      which part belongs on which device, and how it comes there
crc          the sums that zip archives hold
crc32c       the sums that TensorFlow and zarr hold
zip          archives: their directory, and where members lie
unpack       what is in a member of one
npy          the header of an array as NumPy writes it
frames       leaves that are packed one by one, as Orbax does by default
scattered    leaves that are compressed, strided, or in another order of bytes
digests      by which it is told that bytes are those that were written
steps        what a step's name says
meeting      several processes do one thing, or none does
interrupts   Ctrl-C waits until a thing is whole
sync         on the disk, whatever happens to the power
put          what was written here, to an object store
exchange     new contents take their place in one step
replace      where they are written, and what a dead writer left
"""
