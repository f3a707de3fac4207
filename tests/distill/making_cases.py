"""Tiny recipes that recover or select their set."""

from tests.distill.cases import TINY

DATA = TINY.partition("[experts]")[0]
MEMBERS = ("convnet2:width=8:norm=batch", "vgg11:width=4:norm=batch", "resnet18:width=4")
REST = "[committee]" + TINY.partition("[committee]")[2].partition("[projector]")[0]
EVALUATE = "[evaluate]" + TINY.partition("[evaluate]")[2]

RECOVER = (
    DATA
    + REST
    + """
[recover]
ipc = 2
iterations = 6
drawn = 2
candidates = 4
crops = 2
crop_area = 0.5
view_area = 0.5
roll = 1
lr = 0.1
checkpoint_every = 4

"""
    + EVALUATE
)
SELECT = DATA + "[select]\nipc = 1\ncandidates = 4\ncrops = 2\ncrop_area = 0.5\n\n" + EVALUATE
SELECT_TAUGHT = SELECT.replace("[evaluate]", REST + "[evaluate]")
PROJECTOR = """
[projector]
tower = "config:tiny-vit"
rank = 2
templates = ["the handwritten digit {}"]
steps = 2
batch_size = 16
"""
