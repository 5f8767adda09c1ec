"""Write a public MobileFaceNet in TensorFlow Lite as ONNX, so that `facescale evaluate` can measure it.

Reads the operations of such networks (convolutions, PReLU written as ReLU, Abs, Sub, Mul and Add, the last
reshape) and stops at any other. Needs the package `tflite`; nothing of TensorFlow.

    python benchmarks/public_net.py MobileFaceNet.tflite mobilefacenet.onnx
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
import tflite
from onnx import TensorProto, helper, numpy_helper

_TYPES = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.INT32: np.int32}
_OPERATIONS = {
    number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)
}
_CONVOLUTIONS = {"CONV_2D": tflite.Conv2DOptions, "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions}
_ELEMENTWISE = {"RELU": "Relu", "ABS": "Abs", "ADD": "Add", "SUB": "Sub", "MUL": "Mul"}


def same(side: int, size: int, stride: int) -> tuple[int, int]:
    """Rows that TensorFlow's padding SAME adds before and after."""
    rows = max((-(-side // stride) - 1) * stride + size - side, 0)
    return rows // 2, rows - rows // 2


class Graph:
    """The one subgraph of a file, from NHWC to NCHW."""

    def __init__(self, content: bytes) -> None:
        self.model = tflite.Model.GetRootAsModel(content, 0)
        self.graph = self.model.Subgraphs(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def stored(self, index: int) -> np.ndarray | None:
        """The values of a constant; None for what is computed."""
        tensor = self.graph.Tensors(index)
        buffer = self.model.Buffers(tensor.Buffer())
        if not buffer.DataLength():
            return None
        values = np.frombuffer(buffer.DataAsNumpy().tobytes(), _TYPES[tensor.Type()])
        return values.reshape(tensor.ShapeAsNumpy())

    def named(self, index: int) -> str:
        """The ONNX name of an operand; a constant of one value a channel is laid along the channels."""
        values = self.stored(index)
        if values is not None:
            self.constants[f"t{index}"] = values.reshape(1, -1, 1, 1)
        return f"t{index}"

    def convolution(self, name: str, operator: "tflite.Operator") -> None:
        """Add a convolution; TensorFlow may pad one side more than the other."""
        source, weight, bias = (int(index) for index in operator.InputsAsNumpy())
        target = int(operator.OutputsAsNumpy()[0])
        options = _CONVOLUTIONS[name]()
        options.Init(operator.BuiltinOptions().Bytes, operator.BuiltinOptions().Pos)
        assert options.FusedActivationFunction() == 0 and options.StrideH() == options.StrideW()
        depthwise = name == "DEPTHWISE_CONV_2D"
        kernel = self.stored(weight).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        _, side, _, channels = (int(n) for n in self.graph.Tensors(source).ShapeAsNumpy())
        size, stride = kernel.shape[2], options.StrideH()
        before, after = (0, 0) if options.Padding() == tflite.Padding.VALID else same(side, size, stride)
        self.constants |= {f"t{weight}": np.ascontiguousarray(kernel), f"t{bias}": self.stored(bias)}
        self.nodes.append(
            helper.make_node(
                "Conv",
                [f"t{source}", f"t{weight}", f"t{bias}"],
                [f"t{target}"],
                strides=[stride, stride],
                pads=[before, before, after, after],
                kernel_shape=[size, size],
                group=channels if depthwise else 1,
            )
        )

    def translate(self) -> onnx.ModelProto:
        """All operations, with a free batch size.

        Raises:
            ValueError: an operation that is none of those of a MobileFaceNet.
        """
        for number in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(number)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            name = _OPERATIONS[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs = [int(index) for index in operator.InputsAsNumpy()]
            target = f"t{operator.OutputsAsNumpy()[0]}"
            if name in _CONVOLUTIONS:
                self.convolution(name, operator)
            elif name in _ELEMENTWISE:
                operands = [self.named(index) for index in inputs]
                self.nodes.append(helper.make_node(_ELEMENTWISE[name], operands, [target]))
            elif name == "RESHAPE" and number == self.graph.OperatorsLength() - 1:
                self.nodes.append(helper.make_node("Flatten", [f"t{inputs[0]}"], [target]))
            else:
                raise ValueError(f"operation {number} is {name}, which no MobileFaceNet has")
        return self._model()

    def _model(self) -> onnx.ModelProto:
        (source,), (target,) = self.graph.InputsAsNumpy(), self.graph.OutputsAsNumpy()
        _, rows, columns, channels = (int(n) for n in self.graph.Tensors(source).ShapeAsNumpy())
        width = int(self.graph.Tensors(target).ShapeAsNumpy()[1])
        ends = (
            (f"t{source}", ["N", channels, rows, columns]),
            (f"t{target}", ["N", width]),
        )
        inputs, outputs = (
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends
        )
        constants = [numpy_helper.from_array(values, name) for name, values in self.constants.items()]
        graph = helper.make_graph(self.nodes, "mobilefacenet", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tflite", type=Path)
    parser.add_argument("onnx", type=Path)
    args = parser.parse_args()
    onnx.save(Graph(args.tflite.read_bytes()).translate(), args.onnx)


if __name__ == "__main__":
    main()
