"""A client that has no .proto file: it learns everything from the server's reflection.

    ask.py ADDRESS PROMPT      prints the answer's text as it streams

Exit status: 0 after `finished`, 3 after `failed`, 1 when the server cannot be reached.
"""

import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "shoal.inference.v1alpha1.Inference"


def generate_method(channel):
    """The streaming call and its request class, as reflection describes them."""
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services(), database.get_services()
    service = descriptor_pool.DescriptorPool(database).FindServiceByName(SERVICE)
    method = service.FindMethodByName("Generate")
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_stream(
        f"/{SERVICE}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    return call, request


def main():
    address, prompt = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        call, request_class = generate_method(channel)
        request = request_class()
        request.chat.messages.add(role="user", content=prompt)
        for event in call(request, timeout=30):
            kind = event.WhichOneof("event")
            if kind == "tokens":
                print("".join(token.text for token in event.tokens.tokens), end="", flush=True)
            elif kind == "failed":
                print(f"failed: {event.failed.code}: {event.failed.message}", file=sys.stderr)
                return 3
    print()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        sys.exit(1)
