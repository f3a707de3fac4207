"""The recipes of the golden cases: every stage, each in about a second on one thread."""

# One name, so that a run goes on under another of these recipes.
_HEAD = """
name = "golden"
summary = "a golden run"
seed = 0

[data]
source = "digits"
size = 8
subset = 100
augmentation = "colour_crop_cutout_scale_rotate"
"""

_EXPERTS = """
[experts]
network = "convnet2:width=4"
count = 2
epochs = 4
batch_size = 20
lr = 0.05
momentum = 0.5
"""

_MATCH = """
[match]
ipc = 2
iterations = 5
inner_steps = 4
span = 1
max_start_epoch = 2
student_lr = 0.05
checkpoint_every = 2
"""

_COMMITTEE = """
[committee]
members = ["convnet2:width=8:norm=batch", "resnet18:width=4", "vgg11:width=4:norm=batch"]
epochs = 8
batch_size = 20
lr = 0.01
augmentation = "crop"
measure_student = "convnet2:width=4"
measure_ipc = 4
measure_epochs = 20
similarity_images = 20
"""

_RECOVER = """
[recover]
ipc = 2
iterations = 3
candidates = 8
crop_area = 0.5
view_area = 0.5
flip = false
roll = 2
checkpoint_every = 2
"""

_SELECT = """
[select]
ipc = 2
candidates = 8
crops = 2
factor = 1
crop_area = 0.5
"""

_REFINE = """
[refine]
steps = 2
batch_size = 7
"""

_RELABEL = """
[relabel]
epochs = 4
batch_size = 10
active_student = "convnet2:width=4"
active_epochs = 2
"""

_PROJECTOR = """
[projector]
tower = "config:tiny-vit"
rank = 2
templates = ["the handwritten digit {}"]
steps = 4
batch_size = 16
check_every = 2
"""

_EVALUATE = """
[evaluate]
students = ["convnet2:width=4"]
seeds = 2
epochs = 4
whole_epochs = 1
batch_size = 10
"""

RECIPES: dict[str, str] = {
    "match.toml": _HEAD + _EXPERTS + _MATCH,
    "recover.toml": _HEAD + _COMMITTEE + _RECOVER,
    "select.toml": _HEAD + _COMMITTEE + _SELECT,
    "refine.toml": _HEAD + _COMMITTEE + _SELECT + _REFINE + _RELABEL,
    "relabel.toml": _HEAD + _COMMITTEE + _SELECT + _RELABEL,
    "by-ipc.toml": _HEAD
    + _COMMITTEE
    + _SELECT
    + _RELABEL.replace("epochs = 4", "epochs = { 1 = 2, 2 = 3, 10 = 9 }", 1),
    "members.toml": _HEAD
    + _COMMITTEE.replace("epochs = 8", "epochs = 9\npatience = 3", 1)
    + '[committee.recipes."resnet18:width=4"]\noptimizer = "sgd"\nlr = 0.05\nepochs = 12\n'
    + _SELECT,
    "whole.toml": _HEAD + _EXPERTS + _MATCH + _COMMITTEE + _RELABEL + _PROJECTOR + _EVALUATE,
    "glyphclip.toml": _HEAD
    + _COMMITTEE
    + _SELECT
    + _PROJECTOR.replace("config:tiny-vit", "glyphclip").replace("steps = 4", "steps = 2")
    + 'trained = "low-rank"\nstorage = "int8"\nranks = { attention = 2, head = 3 }\n',
    "packed.toml": _HEAD.replace('"digits"', '"packed:packed"').replace("subset = 100\n", "")
    + _EXPERTS
    + _MATCH,
}

# Every family of networks, small.
NETWORKS = ",".join(
    (
        "convnet1:width=4:norm=none:pooling=max:activation=leaky",
        "convnet3:width=4:norm=group",
        "resnet18:width=4:norm=instance",
        "resnet50:width=2",
        "shufflenetv2:width=8",
        "mobilenetv2:width=4",
        "densenet121:width=2",
        "vit-tiny:depth=1:width=64:patch=4",
        "vgg11:width=4",
        "alexnet:width=4",
        "mlp:depth=3:width=8",
    )
)
