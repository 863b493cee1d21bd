"""GPU engines: a TensorRT plan from a graph that already carries its precision. One code path for TensorRT 10 and 11.

Networks are strongly typed (11 has nothing else), so no precision flag is ever set: what the graph says is what runs,
and the layers are inspected afterwards. The tile is fixed, the batch free from 1 to its maximum, so that a session
short of memory can halve it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from wsiseg.engines import cuda_driver, graph, half, inspect
from wsiseg.engines.build import Built, Request
from wsiseg.engines.key import BuildOptions, Machine, key_parts, timing_cache_name
from wsiseg.engines.tensorrt_runtime import make_logger, this_machine
from wsiseg.errors import EngineError
from wsiseg.model import cache, onnxio

OLDEST = 10


def missing() -> str:
    """What this machine lacks to build, or "". TensorRT is imported only where there is a driver and a device."""
    driver = cuda_driver.probe()
    if not driver.gpus:
        return driver.reason
    for module, package in (("tensorrt", "tensorrt"), ("cuda.bindings", "cuda-bindings")):
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"{package} is not installed; pip install 'wsiseg[tensorrt]'"
    import tensorrt as trt

    if int(trt.__version__.split(".")[0]) < OLDEST:
        return f"TensorRT {trt.__version__} is too old; pip install -U 'tensorrt>=10.9'"
    return ""


def options_of(request: Request) -> BuildOptions:
    """The parts of a request that change the plan."""
    return BuildOptions(
        precision=request.precision, tile=request.tile, batch=request.batch, tta=request.model.tta, workspace=request.workspace,
        optimization_level=request.optimization_level, refit=request.refit,
    )  # fmt: skip


def key(request: Request) -> dict[str, Any]:
    """The key of the engine on this machine, with its parts."""
    return key_parts(request.model.digest, this_machine(0), options_of(request))


def prepare_graph(request: Request) -> bytes:
    """The ONNX bytes that TensorRT gets: fixed tile, constants folded, operators checked, precision in the graph.

    Raises:
        ModelError: for an operator that is not on the list, or weights that overflow half precision.
    """
    where = request.model.name
    model = onnxio.parse(request.model.onnx_bytes, where)
    del model.graph.output[1:]
    model = graph.specialise(model, request.tile, where)
    graph.check_operators(model, where)
    if request.precision in ("fp16", "bf16"):
        model, report = half.to_half(model, where, request.precision)
        request.tell(
            f"{report.tensors} tensors in {request.precision} (largest weight {report.largest:.3g}), float32 from {report.kept[0] if report.kept else 'the output'}"
        )
    return onnxio.canonical(model)


def build(request: Request) -> Built:
    """The plan, its layers inspected.

    Raises:
        EngineError: with TensorRT's own last complaint, or when the layers are not in the asked precision.
    """
    import tensorrt as trt

    machine = this_machine(0)
    logger = make_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(prepare_graph(request)):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise EngineError(
            f"{request.model.name}: TensorRT cannot read the graph: {errors[0] if errors else logger.last}"
        )
    config = builder.create_builder_config()
    configure(config, builder, request)
    timings, timing_bytes = attach_timing_cache(config, request, machine)
    request.tell(
        f"TensorRT {trt.__version__} is measuring kernels for {machine.gpu} (minutes at the first time)"
    )
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise EngineError(
            f"{request.model.name}: TensorRT could not build the engine: {logger.last}; try a smaller --batch or --tile, or a larger --workspace"
        )
    plan = bytes(serialized)
    keep_timing_cache(config, timings, timing_bytes)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{request.model.name}: TensorRT cannot load the engine it has just built: {logger.last}"
        )
    inspector = engine.create_engine_inspector()
    layers = inspect.inspect_layers(
        inspector.get_engine_information(trt.LayerInformationFormat.JSON), request.precision
    )
    inspect.require(layers, request.precision)
    request.tell(f"{len(layers.right)} working layers, all in {request.precision}")
    return Built(
        plan,
        trt.__version__,
        request.tile,
        request.batch,
        key_parts(request.model.digest, machine, options_of(request)),
    )


def configure(config: Any, builder: Any, request: Request) -> None:
    """Sizes, effort and flags; no precision flags, since the graph is typed."""
    import tensorrt as trt

    if request.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace)
    config.builder_optimization_level = request.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # TF32 would round an engine that was asked to be fp32 to ten bits.
    config.clear_flag(trt.BuilderFlag.TF32)
    if request.refit:
        config.set_flag(trt.BuilderFlag.REFIT)
    profile = builder.create_optimization_profile()
    sizes = (request.tile, request.tile, 3)
    profile.set_shape(onnxio.INPUT, (1, *sizes), (request.batch, *sizes), (request.batch, *sizes))
    config.add_optimization_profile(profile)


def attach_timing_cache(config: Any, request: Request, machine: Machine) -> tuple[str, bytes]:
    """Give the builder the kernel times measured before; (where they are kept, their bytes)."""
    where = request.timing_cache
    if where:
        try:
            with open(where, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise EngineError(f"{where}: the timing cache cannot be read ({error.strerror})") from error
    else:
        data = cache.get(timing_cache_name(machine)) or b""
    timing_cache = config.create_timing_cache(data)
    if timing_cache is None or not config.set_timing_cache(timing_cache, False):
        # Of another version or GPU: TensorRT refuses it, and an empty one is right.
        config.set_timing_cache(config.create_timing_cache(b""), False)
        data = b""
    return where or timing_cache_name(machine), data


def keep_timing_cache(config: Any, where: str, before: bytes) -> None:
    """Write the kernel times back, when there are new ones."""
    timing_cache = config.get_timing_cache()
    after = bytes(timing_cache.serialize()) if timing_cache is not None else b""
    if not after or after == before:
        return
    if where.endswith(".cache") and "/" not in where and where.startswith("timing-"):
        cache.put(where, after)
    else:
        onnxio.write_atomic(where, after)
