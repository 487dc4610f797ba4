"""What SGLang imports and a machine without a GPU lacks: empty packages in the place of kernels.

Its scheduling code calls none of them. Whatever is asked of such a package is a `_Nothing`: it can be called,
subscripted, subclassed and used as a decorator, and is false. Packages that are installed stay what they are.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_PACKAGES: Final = frozenset(
    {
        *("sgl_kernel", "flashinfer", "flash_attn", "flash_mla", "deep_gemm", "deep_ep", "humming"),
        *("triton", "tilelang", "tvm_ffi", "cutlass", "cuda", "quack", "kernels", "numba", "nvshmem"),
        *("torchao", "torchaudio", "torchcodec", "torchvision", "torch_memory_saver"),
        *("xgrammar", "outlines", "llguidance", "compressed_tensors", "gguf", "datasets", "timm"),
        *("av", "decord", "soundfile", "easydict", "mistral_common", "modelscope", "py_spy"),
        *("tml_renderers", "smg_grpc_servicer", "deepseek_recipe"),
    }
)
_ASKS_WHAT_IS_INSTALLED: Final = "transformers/utils/import_utils"
_FRAMES_TO_IT: Final = 8


class _Nothing:
    """Stands for a function, a class or a value that nobody will need."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        is_decorator = len(arguments) == 1 and not options and callable(arguments[0])
        return arguments[0] if is_decorator and not isinstance(arguments[0], _Nothing) else _Nothing()

    def __getattr__(self, name: str) -> "_Nothing":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()

    def __getitem__(self, key: object) -> "_Nothing":
        return _Nothing()

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __bool__(self) -> bool:
        return False

    def __or__(self, other: object) -> "_Nothing":
        return _Nothing()

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class _EmptyPackage(ModuleType):
    """A package in which every name is a `_Nothing`, and that is as new as anybody asks for."""

    __version__ = "99.0.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _Nothing()
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    """Finds the packages that are not there; asked by transformers what is installed, it finds none."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in self._names or _transformers_asks():
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _EmptyPackage(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__path__ = []
        module.__file__ = f"<no {module.__name__} here>"


def _transformers_asks() -> bool:
    frame = sys._getframe(1)
    for _ in range(_FRAMES_TO_IT):
        if frame.f_back is None:
            return False
        frame = frame.f_back
        if _ASKS_WHAT_IS_INSTALLED in frame.f_code.co_filename.replace("\\", "/"):
            return True
    return False


def stand_in_for_absent_packages() -> None:
    """Put empty packages where SGLang imports what is not installed; does nothing the second time."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    _let_others_look_first()
    absent = frozenset(name for name in _PACKAGES if not _is_installed(name))
    sys.meta_path.insert(0, _Finder(absent))
    if "xgrammar" in absent:  # a field of a pydantic model has this type
        from pydantic import BaseModel

        importlib.import_module("xgrammar").StructuralTag = type("StructuralTag", (BaseModel,), {})  # type: ignore[attr-defined]


def _let_others_look_first() -> None:
    """Let torch and transformers find out what is installed, and remember it, before anything is made up."""
    import torch._higher_order_ops
    import torch.nn.attention.flex_attention
    import torch.utils._triton
    import torch.utils.flop_counter
    from transformers.utils import import_utils

    torch.utils._triton.has_triton_package()
    for name, ask in list(vars(import_utils).items()):
        if name.startswith("is_") and name.endswith("_available") and hasattr(ask, "cache_info"):
            try:
                ask()
            except Exception:  # some want arguments
                continue
    look_up = import_utils._is_package_available

    def is_available(package: str, *arguments: Any, **options: Any) -> Any:
        if package.partition(".")[0] in _PACKAGES and not _is_really_here(package):
            return (False, "N/A")
        return look_up(package, *arguments, **options)

    import_utils._is_package_available = is_available


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _is_really_here(package: str) -> bool:
    module = sys.modules.get(package.partition(".")[0])
    return module is not None and not isinstance(module, _EmptyPackage)
