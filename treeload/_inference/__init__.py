"""What names and shapes tell about two sides that do not match: the evidence behind ``plan.suggest()``.

In the order of the work: ``tokens`` (what words mean), ``templates`` (names without their indices, gathered
into modules), ``relayouts`` (which shapes can become which), ``evidence`` (what speaks for a pair),
``pairing`` (which module feeds which, and how sure), ``turns`` (square kernels), ``proposals`` (rules that
read well), ``fused`` (several modules in one), ``suggestions`` (the result).
``suggest`` and ``diagnosis`` put them together.
"""
