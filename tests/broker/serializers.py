"""Payloads by Confluent's serializers, and the results of their deserializers.

usage: serializers.py URL PREFIX write        registers schemas under subjects that begin with PREFIX and prints payloads, JSON a line
       serializers.py URL PREFIX read         reads such lines from stdin and prints the values

A second opinion on payloads: it shares no code with kladder or with its tests.
"""

import decimal
import json
import sys

from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

ADDRESS = {"type": "record", "name": "Address", "namespace": "com.acme", "fields": [{"name": "city", "type": "string"}]}
ORDER = {
    "type": "record",
    "name": "Order",
    "namespace": "com.acme",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "ship", "type": ["null", "com.acme.Address"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "raw", "type": "bytes"},
        {"name": "either", "type": ["null", "int", "string"]},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Line", "fields": [{"name": "weight", "type": "float"}]},
            },
        },
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "SENT"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 3}},
    ],
}
ORDER_VALUE = {
    "id": 2**53 + 1,
    "ship": {"city": "Köln"},
    "price": decimal.Decimal("-12345.60"),
    "raw": b"\x00\xffA",
    "either": "text",
    "lines": [{"weight": 0.1}, {"weight": 2.5}],
    "tags": {"a": "x"},
    "state": "SENT",
    "hash": b"\x80\x81\x82",
}
JSON_SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "Order",
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string"}},
    "required": ["id"],
}
MONEY = 'syntax = "proto3";\npackage shop;\nmessage Money {\n  int64 cents = 1;\n}\n'
SHOP = """syntax = "proto3";
package shop;
import "%s";
import "google/protobuf/timestamp.proto";
message Order {
  int64 order_id = 1;
  message Line {
    string item = 1;
    Money price = 2;
  }
}
message Shipment {
  message Parcel {
    Order.Line line = 1;
    google.protobuf.Timestamp at = 2;
  }
  repeated Parcel parcels = 1;
}
"""
# The number of indexes, and the indexes, each as zigzag varint; a zero for the first message.
INDEXES = {"Order": b"\x00", "Shipment": b"\x02\x02", "Shipment.Parcel": b"\x04\x02\x00"}


def shop_classes(money_path):
    """The messages of SHOP, without a compiler: by descriptors."""
    from google.protobuf import timestamp_pb2  # noqa: F401, puts its file into the pool

    field = descriptor_pb2.FieldDescriptorProto
    pool = descriptor_pool.Default()
    money = descriptor_pb2.FileDescriptorProto(name=money_path, package="shop", syntax="proto3")
    money.message_type.add(name="Money").field.add(name="cents", number=1, type=field.TYPE_INT64, label=1)
    shop = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    shop.dependency.extend([money_path, "google/protobuf/timestamp.proto"])
    order = shop.message_type.add(name="Order")
    order.field.add(name="order_id", number=1, type=field.TYPE_INT64, label=1)
    line = order.nested_type.add(name="Line")
    line.field.add(name="item", number=1, type=field.TYPE_STRING, label=1)
    line.field.add(name="price", number=2, type=field.TYPE_MESSAGE, type_name=".shop.Money", label=1)
    shipment = shop.message_type.add(name="Shipment")
    parcel = shipment.nested_type.add(name="Parcel")
    parcel.field.add(name="line", number=1, type=field.TYPE_MESSAGE, type_name=".shop.Order.Line", label=1)
    parcel.field.add(name="at", number=2, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Timestamp", label=1)
    shipment.field.add(name="parcels", number=1, type=field.TYPE_MESSAGE, type_name=".shop.Shipment.Parcel", label=3)
    pool.Add(money)
    pool.Add(shop)
    named = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(named(f"shop.{name}")) for name in ["Order", "Shipment", "Shipment.Parcel"]}


def context(subject):
    return SerializationContext(subject, MessageField.VALUE)


def write(client, prefix):
    latest = {"auto.register.schemas": False, "use.latest.version": True}

    def emit(name, subject, payload):
        print(json.dumps({"name": name, "topic": subject, "payload": payload.hex()}))

    client.register_schema(f"{prefix}-address", Schema(json.dumps(ADDRESS), "AVRO"))
    reference = SchemaReference("com.acme.Address", f"{prefix}-address", 1)
    order = Schema(json.dumps(ORDER), "AVRO", [reference])
    client.register_schema(f"{prefix}-avro-value", order)
    serializer = AvroSerializer(client, order, conf=latest)
    emit("avro", f"{prefix}-avro", serializer(ORDER_VALUE, context(f"{prefix}-avro")))

    schema = json.dumps({**JSON_SCHEMA, "description": prefix})
    client.register_schema(f"{prefix}-json-value", Schema(schema, "JSON"))
    serializer = JSONSerializer(schema, client, conf=latest)
    emit("json", f"{prefix}-json", serializer({"name": "x", "id": 7}, context(f"{prefix}-json")))

    money_path = f"{prefix}/money.proto"
    client.register_schema(money_path, Schema(MONEY, "PROTOBUF"))
    text = SHOP % money_path
    reference = SchemaReference(money_path, money_path, 1)
    schema_id = client.register_schema(f"{prefix}-proto-value", Schema(text, "PROTOBUF", [reference]))
    classes = shop_classes(money_path)
    values = {
        "Order": {"orderId": "5"},
        "Shipment": {"parcels": [{"line": {"item": "nail", "price": {"cents": "99"}}, "at": "2020-01-02T03:04:05Z"}, {}]},
        "Shipment.Parcel": {"line": {"item": "screw"}},
    }
    for name, value in values.items():
        message = json_format.ParseDict(value, classes[name]())
        # Framed by hand: this client cannot read a schema's text, since other registries return a descriptor.
        framing = b"\0" + schema_id.to_bytes(4, "big") + INDEXES[name]
        emit(f"proto {name}", f"{prefix}-proto", framing + message.SerializeToString())
        # As this client registers it: a base64 descriptor instead of a text.
        serializer = ProtobufSerializer(classes[name], client, {"use.deprecated.format": False})
        emit(f"descriptor {name}", f"{prefix}-descriptor", serializer(message, context(f"{prefix}-descriptor")))


def read(client, prefix):
    classes = shop_classes(f"{prefix}/money.proto")
    avro = AvroDeserializer(client)
    for line in sys.stdin:
        given = json.loads(line)
        payload, at = bytes.fromhex(given["payload"]), context(given["topic"])
        kind, _, name = given["name"].partition(" ")
        if kind == "avro":
            value = avro(payload, at)
        elif kind == "json":
            value = JSONDeserializer(json.dumps({**JSON_SCHEMA, "description": prefix}))(payload, at)
        else:
            message = ProtobufDeserializer(classes[name], {"use.deprecated.format": False})(payload, at)
            value = json_format.MessageToDict(message)
        print(json.dumps(value, default=lambda other: other.hex() if isinstance(other, bytes) else str(other)))


if __name__ == "__main__":
    url, prefix, verb = sys.argv[1:]
    {"write": write, "read": read}[verb](SchemaRegistryClient({"url": url}), prefix)
