"""The strategies by name: of votes, of making sets, of labels. Imports no torch."""

from __future__ import annotations

from distill.names.entries import Entry, Registry, SelectionEntry

_STARTS = "distill.stages.match.start"

STRATEGIES: Registry[Entry] = Registry(
    "strategy",
    (
        Entry(
            "committee.vote=prior",
            "weights softmax(p / tau), p the held-out accuracy in percent, or committee.priors",
            "CV-DD",
            "distill.teachers.priors:prior_weighting",
        ),
        Entry(
            "committee.vote=measured",
            "as prior, p the held-out accuracy of students of each member alone",
            "CV-DD, whose constants are such accuracies",
            "distill.teachers.priors:measured_weighting",
        ),
        Entry(
            "committee.vote=equal",
            "every member weighs the same",
            "CV-DD",
            "distill.teachers.priors:equal_weighting",
        ),
        Entry(
            "committee.vote=random",
            "weights drawn once for a run",
            "CV-DD",
            "distill.teachers.priors:random_weighting",
        ),
        Entry(
            "committee.vote=similarity",
            "weights similarity^p, p = committee.similarity_power, nearest for the best alone",
            "Borup et al. 2023; PARC, Bolya et al. 2021",
            "distill.teachers.priors:similarity_weighting",
        ),
        Entry(
            "relabel.bssl",
            "teachers' BatchNorm sees the very batches that students will see",
            "CV-DD; on for optimised images and off for real ones, as in HALD",
        ),
        Entry(
            "relabel.mix=cutmix",
            "a box of each view comes from a partner; voted on after mixing",
            "Yun et al. 2019; SRe2L, CV-DD",
        ),
        Entry(
            "relabel.mix=mixup",
            "each view is blended with a partner; voted on after mixing",
            "Zhang et al. 2018; SRe2L",
        ),
        Entry(
            "relabel.views=seed",
            "views, order and mixes drawn again from the seed, in no bytes",
            "Limbeck",
        ),
    ),
)

MAKING: Registry[Entry] = Registry(
    "strategy",
    (
        Entry(
            "match.init=real", "matching starts from real images", "MTT", f"{_STARTS}:start_real"
        ),
        Entry(
            "match.init=correct",
            "real images that finished experts get right",
            "DATM",
            f"{_STARTS}:start_correct",
        ),
        Entry(
            "match.init=easy",
            "real images that finished experts find easiest, by EL2N",
            "after SDC, Wang et al. 2024",
            "distill.stages.difficulty:start_easy",
        ),
        Entry("match.init=random", "uniform pixels", "textbook", f"{_STARTS}:start_random"),
        Entry("match.init=noise", "normal noise", "MTT", f"{_STARTS}:start_noise"),
        Entry(
            "match.label_init=hard", "first labels are one-hot", "textbook", f"{_STARTS}:label_hard"
        ),
        Entry(
            "match.label_init=class",
            "the class leads by match.label_lead",
            "Limbeck",
            f"{_STARTS}:label_class",
        ),
        Entry(
            "match.label_init=experts",
            "mean logits of the experts that are right",
            "DATM",
            f"{_STARTS}:label_experts",
        ),
        Entry(
            "match.objective=parameters",
            "students end where experts do, after steps on the set",
            "MTT",
        ),
        Entry(
            "match.objective=features",
            "features of real images at experts' snapshots, cross-entropy at later ones",
            "after TGDD, Ran et al. 2026",
        ),
        Entry("match.objective=both", "features beside the parameters", "after TGDD"),
        Entry(
            "match.labels=votes",
            "the committee labels the views of every inner step",
            "Limbeck; the labels are FKD's, Shen and Xing 2022",
        ),
        Entry(
            "match.labels=projector",
            "the projector labels the views of every inner step",
            "Limbeck",
        ),
        Entry(
            "recover.schedule=random",
            "members drawn anew for each IPC index",
            "CV-DD",
            "synth.recovery.schedules:drawn_anew",
        ),
        Entry(
            "recover.schedule=pairs",
            "every set of recover.drawn members in turn",
            "CV-DD",
            "synth.recovery.schedules:every_set_in_turn",
        ),
        Entry(
            "recover.schedule=fixed",
            "the recover.drawn members of largest prior",
            "CV-DD",
            "synth.recovery.schedules:largest_priors",
        ),
        Entry(
            "recover.init=mosaics",
            "recovery starts from realistic crops",
            "RDED, SRe2L++",
            "distill.stages.recover.starts:start_mosaics",
        ),
        Entry(
            "recover.init=real",
            "recovery starts from real images",
            "SRe2L++",
            "distill.stages.recover.starts:start_real",
        ),
        Entry(
            "recover.init=noise",
            "recovery starts from normal noise",
            "SRe2L",
            "distill.stages.recover.starts:start_noise",
        ),
        Entry(
            "recover.init=groups",
            "image k of a class starts from a real image of its group k of difficulty",
            "after PSM, 2026",
            "distill.stages.recover.starts:start_groups",
        ),
        Entry(
            "recover.init=anchors",
            "recovery starts from the real images that teachers know best, tiled",
            "CIM, Shang et al. 2026",
            "distill.stages.recover.starts:start_anchors",
        ),
        Entry("recover.aim=statistics", "BatchNorm statistics of all real images", "SRe2L"),
        Entry(
            "recover.aim=groups",
            "BatchNorm statistics of a group of difficulty for each IPC index",
            "after PSM, 2026",
        ),
        Entry(
            "recover.aim=anchors",
            "features of the real images that each image stands for",
            "CIM, Shang et al. 2026",
        ),
        Entry(
            "recover.aim=directions",
            "directions of the gradients of convolutions, by least squares",
            "after OGM, Bo et al. 2026",
        ),
        Entry("recover.blends", "images blended with real patches between steps", "FADRM"),
        Entry("recover.patches=starts", "those that recovery started from", "FADRM"),
        Entry(
            "recover.patches=nearest",
            "chosen anew at each blend: near in features, with few sharp edges",
            "after RETA, Li et al. 2026",
        ),
        Entry("recover.batches=across", "an image of every class, whole statistics", "SRe2L"),
        Entry("recover.batches=within", "images of one class, its own statistics", "LPLD"),
        Entry("recover.background=free", "every pixel may change", "SRe2L"),
        Entry("recover.background=kept", "a black pixel stays black", "Limbeck"),
        SelectionEntry(
            "select.method=random",
            "real images at random: the control",
            "textbook",
            "distill.stages.select:random_images",
            reads="images",
        ),
        SelectionEntry(
            "select.method=herding",
            "the mean feature stays near the class's",
            "Welling 2009",
            "synth.selection.coresets:herding",
            reads="features",
        ),
        SelectionEntry(
            "select.method=k-center",
            "no feature is far from a chosen one",
            "Sener 2018",
            "synth.selection.coresets:k_center",
            reads="features",
        ),
        SelectionEntry(
            "select.method=mosaics",
            "crops that teachers find realistic, tiled",
            "RDED",
            "distill.stages.select:mosaics",
            reads="teachers",
        ),
        SelectionEntry(
            "select.method=el2n",
            "by the distance of experts' early probabilities from the class",
            "Paul et al. 2021",
            "distill.stages.difficulty:el2n_scores",
            reads="experts",
        ),
        SelectionEntry(
            "select.method=forgetting",
            "by how often experts are right and then wrong again",
            "Toneva et al. 2019",
            "distill.stages.difficulty:forgetting_scores",
            reads="experts",
        ),
        Entry("select.difficulty=easy", "the least difficult of a class", "textbook"),
        Entry("select.difficulty=middle", "those around the median", "textbook"),
        Entry("select.difficulty=hard", "the most difficult", "Paul et al. 2021, Toneva et al."),
        Entry(
            "select.difficulty=spread",
            "one from each of ipc equal groups of difficulty",
            "after CCS, Zheng et al. 2023",
        ),
        Entry("select.features=pixels", "features are the normalised pixels", "textbook"),
        Entry("select.features=committee", "features before the teachers' heads", "Sener 2018"),
    ),
)

LABELLING: Registry[Entry] = Registry(
    "strategy",
    (
        Entry("committee.recipes", "a member's own training", "CV-DD"),
        Entry("committee.patience", "early stopping: sure teachers label worse", "CV-DD"),
        Entry("committee.weights", "a member such as torchvision:resnet18 from a file", "CV-DD"),
        Entry("relabel.parts", "batches labelled and trained on in pieces", "CV-DD"),
        Entry("relabel.aggregate=logits", "weighted mean of the members' logits", "CV-DD"),
        Entry("relabel.aggregate=probabilities", "weighted mean of probabilities", "MEAL V2"),
        Entry("relabel.aggregate=standard", "fraction of the members' votes", "Wu et al. 2023"),
        Entry("relabel.aggregate=softmax", "softmax of the numbers of votes", "Wu et al. 2023"),
        Entry("relabel.aggregate=dawid-skene", "a confusion matrix for each member", "1979"),
        Entry("relabel.aggregate=glad", "skill and difficulty; needs crowd-kit", "crowd-kit"),
        Entry("relabel.aggregate=mace", "members who may guess; needs crowd-kit", "crowd-kit"),
        Entry("relabel.aggregate=wawa", "weighed by agreement with the majority", "crowd-kit"),
        Entry("relabel.aggregate=zero-based-skill", "weighed by settled agreement", "crowd-kit"),
        Entry("relabel.zones=ferkd", "drop labels that show nothing, correct background", "FerKD"),
        Entry(
            "relabel.active=robust",
            "teachers label relabel.budget of the views, chosen by the max-min formula",
            "Baykal et al. 2023",
        ),
        Entry("relabel.active=random", "teachers label relabel.budget of the views", "textbook"),
        Entry("relabel.unasked=reuse", "a labelled view of the same image instead", "LPLD's pool"),
        Entry("relabel.unasked=hard", "views without a teacher's label have the class", "textbook"),
        Entry("evaluate.soft_eta", "a cosine that is longer than the training", "CV-DD"),
        Entry("evaluate.soft_average", "a moving average of the student's weights", "LPQLD's code"),
        Entry("evaluate.self_mix", "a box of each view from another of the same image", "FerKD"),
        Entry("evaluate.gift", "labels mixed with hard ones, cosine loss", "GIFT"),
        Entry("evaluate.hard_weight", "labels mixed with the class, KL loss", "Hinton et al. 2015"),
        Entry("evaluate.hard_share", "soft, then hard, then soft labels", "HALD"),
        Entry(
            "evaluate.discriminator",
            "weight of a discriminator's loss between students and teachers",
            "MEAL V2, Shen and Savvides 2020",
        ),
        Entry("evaluate.anneal=step", "labels' temperature falls in steps", "LPQLD"),
        Entry("evaluate.anneal=cosine", "labels' temperature falls along a cosine", "LPQLD"),
        Entry("evaluate.calibrated", "the student's own temperature, nearest to labels", "LPQLD"),
    ),
)


def choices(key: str) -> dict[str, Entry]:
    """The entries of the values that a key of a recipe may have, such as "recover.init"."""
    start = f"{key}="
    tables = (STRATEGIES, MAKING, LABELLING)
    entries = [
        entry for table in tables for entry in table.values() if entry.name.startswith(start)
    ]
    return {entry.name.removeprefix(start): entry for entry in entries}


def selection(method: str) -> SelectionEntry:
    """The entry of a value of select.method."""
    entry = choices("select.method")[method]
    if not isinstance(entry, SelectionEntry):
        raise TypeError(f"{entry.name} is a {type(entry).__name__}; write a SelectionEntry")
    return entry
