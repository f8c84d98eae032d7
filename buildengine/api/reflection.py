"""grpc.reflection.v1 and v1alpha: which services there are, and the files that describe their messages.

Source: grpc/doc/server-reflection.md. The files are those of the generated modules that are loaded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor

from buildengine.api import reflection_pb2, reflection_v1alpha_pb2, rpc
from buildengine.api.rpc import Code

SERVICES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def reflection(services: rpc.Services) -> rpc.Services:
    """Tells of `services`, and of itself."""
    names = sorted({path.split("/")[1] for path in services} | set(SERVICES))
    return rpc.merged(
        *(
            rpc.service(name, {"ServerReflectionInfo": _method(module, names)})
            for name, module in zip(SERVICES, (reflection_pb2, reflection_v1alpha_pb2), strict=True)
        )
    )


def _method(module: Any, names: list[str]) -> rpc.Method[Any, Any]:
    """The two versions have the same fields under other names of their types."""
    return rpc.stream(module.ServerReflectionRequest, module.ServerReflectionResponse, _handler(module, names))


def _handler(module: Any, names: list[str]) -> Callable[[rpc.ServerCall[Any, Any]], Awaitable[None]]:
    async def handler(call: rpc.ServerCall[Any, Any]) -> None:
        while (request := await call.receive()) is not None:
            answer = module.ServerReflectionResponse(valid_host=request.host, original_request=request)
            try:
                _answer(request, answer, names)
            except KeyError:
                answer.error_response.error_code = int(Code.NOT_FOUND)
                answer.error_response.error_message = f"not found: {_asked(request)}"
            await call.send(answer)

    return handler


def _answer(request: Any, answer: Any, names: list[str]) -> None:
    """Fills in `answer`. Raises KeyError for what is not known."""
    pool = descriptor_pool.Default()
    match request.WhichOneof("message_request"):
        case "list_services":
            for name in names:
                answer.list_services_response.service.add(name=name)
        case "file_by_filename":
            _describe(answer, pool.FindFileByName(request.file_by_filename))
        case "file_containing_symbol":
            _describe(answer, pool.FindFileContainingSymbol(request.file_containing_symbol))
        case "file_containing_extension":
            asked = request.file_containing_extension
            extended = pool.FindMessageTypeByName(asked.containing_type)
            extension = pool.FindExtensionByNumber(extended, asked.extension_number)
            _describe(answer, pool.FindFileContainingSymbol(extension.full_name))
        case "all_extension_numbers_of_type":
            extended = pool.FindMessageTypeByName(request.all_extension_numbers_of_type)
            answer.all_extension_numbers_response.base_type_name = extended.full_name
            numbers = sorted(extension.number for extension in pool.FindAllExtensions(extended))
            answer.all_extension_numbers_response.extension_number.extend(numbers)
        case _:
            answer.error_response.error_code = int(Code.INVALID_ARGUMENT)
            answer.error_response.error_message = "nothing is asked"


def _describe(answer: Any, file: FileDescriptor) -> None:
    """The file and all that it imports, each once, itself first."""
    files = {file.name: file}
    waiting = [file]
    while waiting:
        for imported in waiting.pop().dependencies:
            if imported.name not in files:
                files[imported.name] = imported
                waiting.append(imported)
    answer.file_descriptor_response.file_descriptor_proto.extend(one.serialized_pb for one in files.values())


def _asked(request: Any) -> str:
    asked = getattr(request, request.WhichOneof("message_request"))
    return asked if isinstance(asked, str) else f"extension {asked.extension_number} of {asked.containing_type}"
