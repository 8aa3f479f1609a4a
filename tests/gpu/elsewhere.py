"""A device that is not the CPU, on every machine: what would go wrong on a GPU because a tensor lies on the other side goes
wrong here, too.

Its tensors hold values in the machine's memory, but say that they lie on "elsewhere", and torch believes it (autograd,
optimisers, autocast). As with a GPU, operations that mix them with the CPU's are errors (but for numbers and indices), so is
`numpy()`, a generator of the CPU cannot draw on it, integers are not multiplied as matrices, and autocast multiplies bfloat16.

Made of torch's PrivateUse1, which a process can only take once and never gives back: hence a pytest run of its own
(`test_elsewhere.py`).
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
aten = torch.ops.aten
TAKES_INDICES = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}  # also the CPU's
TAKE_NO_SCALAR = {aten.cat, aten.stack}  # where a number of the CPU, a tensor without dimensions, is none
MULTIPLIES = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.addmv, aten.dot}
MAKE_TENSORS = ("empty.memory_format", "empty_strided",  # the rest call these, but for those that resize what they got
                "arange", "arange.start", "arange.start_step", "eye", "eye.m")
IN_BFLOAT16 = ("conv2d", "conv2d.padding", "conv_transpose2d.input", "linear", "matmul", "mm", "bmm", "addmm")  # by autocast


class _Module(_DummyBackendModule):
    """What torch asks a kind of device for, as torch.cuda is for a GPU."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        pass


class Elsewhere(torch.Tensor):
    """A tensor of the device; `values` has its content."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "Elsewhere":
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, strides=values.stride(), dtype=values.dtype,
                                                   storage_offset=values.storage_offset(), device=torch.device(NAME, 0))

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __repr__(self) -> str:
        return f"Elsewhere({self.values!r})"

    def tolist(self) -> list:
        return self.cpu().tolist()

    def numpy(self, **_: object) -> None:
        raise TypeError(f"can't convert {NAME} device type tensor to numpy. Use Tensor.cpu() to copy the tensor first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, operation: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        return _run(operation, args, kwargs or {})


def _tensors(*operands: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(operands) if isinstance(leaf, torch.Tensor)]


def _run(operation: Callable, args: tuple, kwargs: dict) -> object:
    """One operation of torch, computed on the CPU; the results lie where the operands do, or where they are asked for."""
    kind, there = operation.overloadpacket, [tensor for tensor in _tensors(args, kwargs) if isinstance(tensor, Elsewhere)]
    asked = kwargs.get("device")
    stays = bool(there) if asked is None else torch.device(asked).type == NAME
    if kind in TAKES_INDICES or kind is aten.copy_:
        stays = isinstance(args[0], Elsewhere)
    meeting = _tensors(args[:1] + args[2:] if kind in TAKES_INDICES and stays else args, kwargs)
    changed = _tensors(args[:1]) if operation._schema.is_mutable or kind in TAKE_NO_SCALAR else []
    mixed = any((tensor.dim() or any(tensor is other for other in changed)) and not isinstance(tensor, Elsewhere)
                for tensor in meeting)
    if there and mixed and kind not in {aten._to_copy, aten.copy_}:
        raise RuntimeError(f"{operation}: Expected all tensors to be on the same device, but found {NAME} and cpu")
    if stays and kwargs.get("generator") is not None:
        raise RuntimeError(f"{operation}: Expected a '{NAME}' device type for generator but found 'cpu'")
    if stays and kind in MULTIPLIES and not args[0].is_floating_point():
        raise NotImplementedError(f"{operation} is not implemented for {args[0].dtype} on {NAME}")
    if asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    outside = {id(tensor.values): tensor for tensor in there}

    def unwrap(leaf: object) -> object:
        return leaf.values if isinstance(leaf, Elsewhere) else leaf

    def wrap(leaf: object) -> object:  # what works in place hands back the tensor that it was given
        if not stays or not isinstance(leaf, torch.Tensor) or isinstance(leaf, Elsewhere):
            return leaf
        return outside[id(leaf)] if id(leaf) in outside else Elsewhere(leaf)

    results = tree_map(wrap, operation(*tree_map(unwrap, args), **tree_map(unwrap, kwargs)))
    if stays and torch.Tag.inplace_view in operation.tags:  # squeeze_ and the like: what torch knows of the shape, too
        with no_dispatch():
            operation(*args, **kwargs)
    assert all(tensor.shape == tensor.values.shape for tensor in there), f"{operation} changed a shape"
    return results


def _in_bfloat16(operation: Callable) -> Callable:
    def run(*args: object, **kwargs: object) -> torch.Tensor:
        def lower(leaf: object) -> object:
            return leaf.bfloat16() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

        with torch.autocast(NAME, enabled=False):
            return operation(*tree_map(lower, args), **tree_map(lower, kwargs))

    return run


def _empty(operation: Callable, *args: object, **kwargs: object) -> Elsewhere:
    return Elsewhere(operation(*args, **kwargs | {"device": torch.device("cpu"), "pin_memory": False}))


def _copy_from(values: torch.Tensor, tensor: Elsewhere, non_blocking: bool = False) -> Elsewhere:
    tensor.values.copy_(values)
    return tensor


def _operation(name: str) -> Callable:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def register() -> list[torch.library.Library]:
    """Make the device known to torch, once and for all; what it returns must be kept."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    rest, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    rest.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for name in IN_BFLOAT16:
        own.impl(name, _in_bfloat16(_operation(name)), "AutocastPrivateUse1")
    for name in MAKE_TENSORS:
        own.impl(name, functools.partial(_empty, _operation(name)), "PrivateUse1")
    own.impl("_copy_from", _copy_from, "PrivateUse1")  # by torch.tensor([1, 2], device="elsewhere")
    return [rest, own]


@contextmanager
def present() -> Iterator[None]:
    """The device can be used."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # `module.to` makes new parameters
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
