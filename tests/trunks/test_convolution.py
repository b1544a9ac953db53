"""Layers for images, and the trunks made of them, against torch's own layers with the same weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from kinfolk import replicas
from kinfolk.catalogue import CATALOGUES, parse, text_of
from kinfolk.trunks import LeNet, ResNet, stages
from kinfolk.trunks.convolution import Conv2d, MaxPool, MeanPool
from kinfolk.trunks.resnet import Block
from kinfolk.trunks.stages import BatchNorm


def torchs_convolution(layer: Conv2d, i: int = 0) -> nn.Conv2d:
    outputs, inputs, kernel = layer.weight.shape[1:4]
    made = nn.Conv2d(inputs, outputs, kernel, layer.stride, layer.padding, bias=layer.bias is not None)
    made.weight.data = layer.weight[i].detach().clone()
    if made.bias is not None and layer.bias is not None:
        made.bias.data = layer.bias[i].detach().clone()
    return made


def torchs_norm(layer: BatchNorm) -> nn.BatchNorm2d:
    made = nn.BatchNorm2d(layer.weight.shape[1])
    made.weight.data, made.bias.data = layer.weight[0].detach().clone(), layer.bias[0].detach().clone()
    return made


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding", "bias"), [(3, 1, 0, True), (3, 2, 1, False), (1, 2, 0, True)])
def test_convolution(copies: int, kernel: int, stride: int, padding: int, bias: bool) -> None:
    stack = replicas.stack([Conv2d(2, 4, kernel, stride, padding, bias) for _ in range(copies)])
    x = torch.randn(copies, 5, 2, 7, 6, requires_grad=True)
    theirs = [torchs_convolution(stack, i) for i in range(copies)]
    expected = torch.stack([layer(x[i]) for i, layer in enumerate(theirs)])
    torch.testing.assert_close(stack(x), expected)
    back = torch.randn_like(expected)
    ours, *_ = torch.autograd.grad((stack(x) * back).sum(), [x])
    torch.testing.assert_close(ours, torch.autograd.grad((expected * back).sum(), [x])[0])


def test_a_convolution_starts_as_torchs_does() -> None:
    mine, theirs = Conv2d(8, 200, 3), nn.Conv2d(8, 200, 3)
    for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert float(one.detach().abs().max()) <= 72**-0.5
        assert float(one.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["convolution", "pool", "mean", "norm", "block"])
def test_copies_do_not_touch_each_other(kind: str, dtype: torch.dtype) -> None:
    """NaN sent back from one copy reaches nothing of another: what `reach` relies on."""
    make = {
        "convolution": lambda: Conv2d(8, 8, 3), "pool": lambda: MaxPool(2), "mean": MeanPool,
        "norm": lambda: BatchNorm(8), "block": lambda: Block(8, 16, 2),
    }  # fmt: skip
    stack = replicas.stack([make[kind]() for _ in range(3)]).to(dtype).eval()
    x = torch.randn(3, 4, 8, 6, 6, dtype=dtype, requires_grad=True)
    y = stack(x)
    back = torch.zeros_like(y)
    back[1] = torch.nan
    y.backward(back)
    for tensor in (x, *stack.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.flatten(1).isnan().any(1).tolist() == [False, True, False]


def test_pooling() -> None:
    x = torch.randn(3, 4, 2, 7, 6)
    expected = torch.stack([nn.functional.max_pool2d(one, 2) for one in x])
    assert torch.equal(MaxPool(2)(x), expected)
    torch.testing.assert_close(MeanPool()(x), torch.stack([one.mean((2, 3)) for one in x]))


def test_folding_between_layers_copies_nothing() -> None:
    stack = replicas.stack([Conv2d(2, 4, 3) for _ in range(3)])
    y = stack(torch.randn(3, 5, 2, 6, 6)).relu()
    assert y.transpose(0, 1).flatten(1, 2).data_ptr() == y.data_ptr()


@pytest.mark.parametrize("training", [True, False])
def test_copies_folded_or_one_by_one(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """How they run is a matter of speed alone: same outputs, gradients and running statistics."""
    shape = torch.Size([2, 9, 8])
    made = [nn.Sequential(*ResNet((1, 1), width=3).build(shape).modules) for _ in range(3)]
    folded = replicas.stack(made).double().train(training)
    apart = copy.deepcopy(folded)
    x = torch.randn(3, 4, *shape, dtype=torch.float64)
    y = folded(x)
    monkeypatch.setattr(stages, "LARGE", 0)
    z = apart(x)
    torch.testing.assert_close(y, z)
    for result in (y, z):
        result.square().sum().backward()
    torch.testing.assert_close(dict(folded.named_buffers()), dict(apart.named_buffers()))
    for one, other in zip(folded.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def torchs_lenet(built: list[nn.Module]) -> nn.Sequential:
    """The network of Deep-AMTFL's code from torch's layers."""
    first, second, dense = (stage.get_submodule(n) for stage, n in zip(built, ("0", "0", "1"), strict=True))
    assert isinstance(first, Conv2d)
    assert isinstance(second, Conv2d)
    weight, bias = dense.get_parameter("weight"), dense.get_parameter("bias")
    linear = nn.Linear(weight.shape[1], weight.shape[2])
    linear.weight.data, linear.bias.data = weight[0].detach().T.clone(), bias[0, 0].detach().clone()
    layers = [torchs_convolution(first), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [torchs_convolution(second), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), linear, nn.ReLU())


def test_lenet_is_torchs() -> None:
    built = LeNet().build(torch.Size([1, 28, 28]))
    assert [tuple(shape) for shape in built.shapes] == [(20, 12, 12), (50, 4, 4), (500,)]
    x = torch.randn(1, 3, 1, 28, 28)
    theirs = torchs_lenet(list(built.modules))
    torch.testing.assert_close(nn.Sequential(*built.modules)(x)[0], theirs(x[0]))
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for s in built.modules for p in s.parameters())


class TorchsBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.a, self.a_norm = torchs_convolution(block.first), torchs_norm(block.first_norm)
        self.b, self.b_norm = torchs_convolution(block.second), torchs_norm(block.second_norm)
        self.shortcut = nn.Sequential()
        if block.shortcut is not None:
            layer, norm = block.shortcut
            assert isinstance(layer, Conv2d)
            assert isinstance(norm, BatchNorm)
            self.shortcut = nn.Sequential(torchs_convolution(layer), torchs_norm(norm))

    def forward(self, x: Tensor) -> Tensor:
        y = self.b_norm(self.b(self.a_norm(self.a(x)).relu()))
        return (y + self.shortcut(x)).relu()


def torchs_resnet(built: list[nn.Module]) -> nn.Sequential:
    layer, norm = (built[0].get_submodule(name) for name in "01")
    assert isinstance(layer, Conv2d)
    assert isinstance(norm, BatchNorm)
    blocks = [TorchsBlock(block) for stage in built[1:] for block in stage.modules() if isinstance(block, Block)]
    stem = (torchs_convolution(layer), torchs_norm(norm), nn.ReLU())
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_resnet_is_torchs() -> None:
    built = ResNet((2, 1, 1), width=4).build(torch.Size([3, 9, 8]))
    assert [tuple(shape) for shape in built.shapes] == [(4, 9, 8), (4, 9, 8), (8, 5, 4), (16,)]
    ours, theirs = nn.Sequential(*built.modules).double(), torchs_resnet(list(built.modules)).double()
    for training in (True, False):
        x = torch.randn(1, 5, 3, 9, 8, dtype=torch.float64)
        torch.testing.assert_close(ours.train(training)(x)[0], theirs.train(training)(x[0]))
        replicas.tick(ours)


@pytest.mark.parametrize(
    ("blocks", "width", "layers"), [((2, 2, 2, 2), 64, 18), ((3, 4, 6, 3), 4, 34), ((3,) * 3, 16, 20)]
)
def test_depths_of_the_paper(blocks: tuple[int, ...], width: int, layers: int) -> None:
    """Convolutions beside the shortcuts, and the head: what the paper counts."""
    built = ResNet(blocks, width).build(torch.Size([3, 32, 32]))
    found = [m for stage in built.modules for m in stage.modules() if isinstance(m, Conv2d) and m.weight.shape[-1] == 3]
    assert len(found) + 1 == layers
    assert built.sizes[-1] == width * 2 ** (len(blocks) - 1)


def test_the_size_of_resnet_18() -> None:
    """11.17 million parameters without the head, as in public code for CIFAR-10 (kuangliu/pytorch-cifar)."""
    built = ResNet().build(torch.Size([3, 32, 32]))
    assert sum(p.numel() for stage in built.modules for p in stage.parameters()) == 11_173_962 - 5_130


@pytest.mark.parametrize("trunk", [LeNet((3, 4), 3, 6, shape=(2, 10, 12)), ResNet((1, 1), 3, shape=(2, 10, 12))])
def test_flat_inputs_are_the_images(trunk: LeNet | ResNet) -> None:
    network = nn.Sequential(*trunk.build(torch.Size([240])).modules)
    images = copy.copy(trunk)
    images.shape = None
    with replicas.own("trunk", 0):
        flat = nn.Sequential(*trunk.build(torch.Size([240])).modules)
    with replicas.own("trunk", 0):
        network = nn.Sequential(*images.build(torch.Size([2, 10, 12])).modules)
    x = torch.randn(1, 3, 240)
    torch.testing.assert_close(flat(x), network(x.view(1, 3, 2, 10, 12)))


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "tanh", "sigmoid"])
def test_lenet_options(activation: str) -> None:
    built = LeNet((2, 3, 4), 3, 5, activation, dropout=0.5).build(torch.Size([2, 24, 22]))
    x = torch.randn(1, 4, 2, 24, 22)
    for stage, shape in zip(built.modules, built.shapes, strict=True):
        x = stage(x)
        assert x.shape == (1, 4, *shape)
    assert built.shapes[-1] == (5,)


@pytest.mark.parametrize(
    ("kind", "arguments", "why"),
    [
        (LeNet, {"channels": ()}, r"`channels` must be at least one number.*Got \(\)"),
        (LeNet, {"channels": (4, 0)}, "each at least 1"),
        (LeNet, {"kernel": 0}, "`kernel` and `hidden`"),
        (LeNet, {"hidden": 0}, "`kernel` and `hidden`"),
        (LeNet, {"activation": "swish"}, "must be one of silu"),
        (LeNet, {"dropout": 1.0}, r"in \[0, 1\)"),
        (LeNet, {"shape": (28, 28)}, r"channels, height and width.*Got \(28, 28\)"),
        (ResNet, {"blocks": ()}, "`blocks` must be at least one number"),
        (ResNet, {"blocks": (1, 0)}, "each at least 1"),
        (ResNet, {"width": 0}, "`width` must be at least 1"),
        (ResNet, {"shape": (1, 8, 0)}, "channels, height and width"),
    ],
)
def test_refuses(kind: type[LeNet | ResNet], arguments: dict, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        kind(**arguments)


@pytest.mark.parametrize("kind", [LeNet, ResNet])
def test_refuses_inputs(kind: type[LeNet | ResNet]) -> None:
    with pytest.raises(ValueError, match=r"Got \[64\]\. Flat ones need a `shape`, such as shape=\(1, 8, 8\)"):
        kind().build(torch.Size([64]))
    with pytest.raises(ValueError, match=r"such as shape=\(1, 28, 28\)"):
        kind().build(torch.Size([5]))
    with pytest.raises(ValueError, match=r"1 x 8 x 8 = 64\. Got 65"):
        kind(shape=(1, 8, 8)).build(torch.Size([65]))


def test_lenet_refuses_small_images() -> None:
    with pytest.raises(ValueError, match=r"2 convolutions of kernel 5 with pooling. Got inputs \[1, 8, 8\]"):
        LeNet().build(torch.Size([1, 8, 8]))


@pytest.mark.parametrize(
    "text", ["lenet(channels=(4, 8), kernel=3, shape=(1, 8, 8))", "resnet(blocks=(1, 1), width=8)"]
)
def test_text(text: str) -> None:
    assert text_of(CATALOGUES["trunks"].make(parse(text)[0])) == text


def test_lenet_by_glorots_law() -> None:
    first, second, dense = LeNet(init="glorot").build(torch.Size([1, 28, 28])).modules
    for stage, inputs, outputs in ((first, 25, 500), (second, 500, 1250), (dense, 800, 500)):
        weight, bias = stage.parameters()
        bound = math.sqrt(6 / (inputs + outputs))
        assert 0.9 * bound < float(weight.detach().abs().max()) <= bound
        assert not bool(bias.detach().any())
    with pytest.raises(ValueError, match="`init` must be one of torch, glorot"):
        LeNet(init="zeros")


def test_one_copy_computes_with_channels_innermost() -> None:
    found = Conv2d(1, 3, 5)(torch.randn(1, 4, 1, 9, 9))
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    pooled = MaxPool(2)(found)
    torch.testing.assert_close(pooled[0], nn.functional.max_pool2d(found[0].contiguous(), 2))


def test_lenet_may_pad() -> None:
    built = LeNet((2, 3, 4), kernel=3, hidden=5, padding=1).build(torch.Size([1, 14, 15]))
    assert built.shapes == [torch.Size(shape) for shape in ([2, 7, 7], [3, 3, 3], [4, 1, 1], [5])]
    x = torch.randn(1, 2, 1, 14, 15)
    weight, bias = built.modules[0].parameters()
    expected = nn.functional.max_pool2d(nn.functional.conv2d(x[0], weight[0], bias[0], padding=1), 2).relu()
    torch.testing.assert_close(built.modules[0](x)[0], expected)
    with pytest.raises(ValueError, match=r"`padding` must not be negative\. Got -1"):
        LeNet(padding=-1)
