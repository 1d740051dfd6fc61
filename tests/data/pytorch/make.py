"""Writes the files of this folder, with PyTorch; the tests read them without it.

    python tests/data/pytorch/make.py

Needs ``torch`` and ``numpy``, which treeload's tests do not have; the files are committed. They were written
by torch 2.13.0. Beside them ``expected.npz`` holds the values, by the name of the file and the name in
treeload; what NumPy has no dtype for is there as its bits."""

from __future__ import annotations

import argparse
import json
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found]  # see above

HERE = Path(__file__).parent
BITS = {1: torch.uint8, 2: torch.int16}
expected: dict[str, Any] = {}


def bits(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().contiguous()
    if tensor.dtype in (torch.bfloat16, *FLOAT8):
        return tensor.view(BITS[tensor.element_size()]).numpy()
    return tensor.numpy()


def write(name: str, saved: Any, leaves: dict[str, Any], **options: Any) -> None:
    torch.save(saved, HERE / name, **options)
    for leaf, value in leaves.items():
        expected[f"{name}/{leaf}"] = bits(value) if isinstance(value, torch.Tensor) else np.asarray(value)


def both(name: str, saved: Any, leaves: dict[str, Any]) -> None:
    write(f"{name}.pt", saved, leaves)
    write(f"{name}.old.pt", saved, leaves, _use_new_zipfile_serialization=False)


torch.manual_seed(0)
OLD = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128,
)  # fmt: skip
FLOAT8 = (
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
)  # fmt: skip
NEW = (*FLOAT8, torch.uint16, torch.uint32, torch.uint64)


def of(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(1, 7).reshape(2, 3).to(torch.float32).to(dtype)


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def module() -> torch.nn.Module:
    return torch.nn.Sequential(
        OrderedDict(dense=torch.nn.Linear(3, 4), norm=torch.nn.BatchNorm1d(4), head=torch.nn.Linear(4, 2))
    )


def main() -> None:
    dtypes = {name_of(dtype): of(dtype) for dtype in OLD}
    both("dtypes", dtypes, dtypes)
    newer = {name_of(dtype): of(dtype) for dtype in NEW}
    both("newer_dtypes", newer, newer)

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    views = {
        "base": base,
        "transposed": base.T,
        "strided": base[::2, 1::2],
        "row": base[2],
        "expanded": torch.arange(3, dtype=torch.int16).expand(4, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 5),
        "alone": torch.arange(10, dtype=torch.float32).reshape(2, 5).T,
        "part": torch.arange(1000, dtype=torch.float32)[10:14],
        "apart": torch.arange(1000, dtype=torch.float32).reshape(100, 10)[3:5, ::5],
    }
    both("views", views, views)

    shared = torch.nn.Parameter(torch.randn(5, 3))
    tied = OrderedDict([("embed.weight", shared), ("head.weight", shared), ("head.bias", torch.zeros(5))])
    both("tied", tied, {name.replace(".", "/"): value for name, value in tied.items()})

    net = module()
    net(torch.randn(8, 3)).square().sum().backward()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    optimizer.step()
    state = {f"model/{name.replace('.', '/')}": value for name, value in net.state_dict().items()}
    moments = {
        f"optimizer/state/{number}/{name}": value
        for number, each in optimizer.state_dict()["state"].items()
        for name, value in each.items()
    }
    args = argparse.Namespace(lr=0.01, name="small", sizes=torch.Size([3, 4]))
    training = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "best": 0.25,
        "done": False,
        "arch": "small",
        "nothing": None,
        "args": args,
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "loss": np.float32(0.5),
        "count": np.int64(7),
        "tags": {"a", "b"},
        "large": 2**200,
        "history": [1.0, 0.5],
    }
    leaves = {
        **state,
        **moments,
        "epoch": 3,
        "best": 0.25,
        "done": False,
        "loss": np.float32(0.5),
        "count": np.int64(7),
        "args/lr": 0.01,
        "args/sizes/0": 3,
        "args/sizes/1": 4,
        "history/0": 1.0,
        "history/1": 0.5,
    }
    both("training", training, leaves)
    write("protocol4.pt", training, leaves, pickle_protocol=4)
    write("parameters.pt", list(net.parameters()), {str(i): each for i, each in enumerate(net.parameters())})
    write("tensor.pt", base, {"": base})
    write("storage.pt", {"raw": base.untyped_storage()}, {"raw": bits(base.reshape(-1).view(torch.uint8))})
    wrapped = {"state_dict": {f"module._orig_mod.{name}": value for name, value in net.state_dict().items()}}
    named = {
        f"state_dict/module/_orig_mod/{name.replace('.', '/')}": v for name, v in net.state_dict().items()
    }
    write("wrapped.pth.tar", wrapped, named)

    torch.serialization.set_crc32_options(False)
    write("no_sums.pt", {"w": base}, {"w": base})
    torch.serialization.set_crc32_options(True)

    shards = HERE / "shards"
    shards.mkdir(exist_ok=True)
    where: dict[str, str] = {}
    items = list(net.state_dict().items())
    for number, part in enumerate((items[:4], items[4:]), 1):
        shard = f"pytorch_model-{number:05}-of-00002.bin"
        write(f"shards/{shard}", dict(part), {name.replace(".", "/"): value for name, value in part})
        where |= {name: shard for name, _ in part}
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (shards / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")

    refused = HERE / "refused"
    refused.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")
    torch.save({"w": torch.quantize_per_tensor(base, 0.1, 0, torch.qint8)}, refused / "quantised.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(refused / "torchscript.pt")
    torch.save(torch.nn.Linear(2, 2), refused / "module.pt")
    torch.save({"w": base.to_sparse()}, refused / "sparse.pt")
    torch.save({"w": torch.ones(2, dtype=torch.complex64).conj()}, refused / "conjugated.pt")
    torch.save({"w": torch.ones(2, dtype=torch.chalf)}, refused / "complex32.pt")
    torch.save({"w": np.ones(3)}, refused / "numpy_array.pt")
    for path in sorted((HERE / "lpips").glob("*.pth")):
        for name, value in torch.load(path, map_location="cpu").items():
            expected[f"lpips/{path.name}/{name.replace('.', '/')}"] = bits(value)
    np.savez_compressed(HERE / "expected.npz", **expected)


if __name__ == "__main__":
    main()
