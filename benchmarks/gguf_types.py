"""Writes a GGUF model anew with its matrices in another type, so that llama.cpp can be measured at the precision that it is compared with.

    python -m benchmarks.gguf_types SOURCE.gguf OUT.gguf BF16|Q8_0|F16

From a more coarsely quantised source the values stay coarse; speed and size are those of the type.
"""

import argparse
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, Keys, quants

_TYPES = ("BF16", "Q8_0", "F16")


def convert(source: Path, out: Path, type_name: str) -> None:
    """Every tensor of two dimensions in the type named, the others as 32-bit floats; everything else as it was."""
    reader = GGUFReader(source)
    writer = GGUFWriter(out, reader.get_field(Keys.General.ARCHITECTURE).contents())
    for field in reader.fields.values():
        if field.name in (Keys.General.ARCHITECTURE, Keys.General.FILE_TYPE) or field.name.startswith("GGUF."):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        values = quants.dequantize(tensor.data, tensor.tensor_type)
        kind = GGMLQuantizationType[type_name] if len(values.shape) > 1 else GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("type", choices=_TYPES)
    options = parser.parse_args()
    convert(options.source, options.out, options.type)


if __name__ == "__main__":
    main()
