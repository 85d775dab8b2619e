import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import assert_one_sentence
from tiny import changed

from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import canonical
from gradbench.models.conv import ConvForm
from gradbench.models.dense import DenseForm
from gradbench.results.manifest import suite_hash
from gradbench.suites.data import load_data
from gradbench.suites.datasets.sources import SOURCES
from gradbench.suites.library import PROBLEMS, SUITES
from gradbench.suites.problem import WeightTraining
from gradbench.suites.read_problem import list_problems, load_problem
from gradbench.suites.suite import list_suites, load_suite

FIGURE = [
    "exact",
    "reinforce",
    "arm",
    "concrete(temperature=0.1)",
    "concrete(temperature=1)",
    "straight_through",
    "mean_field",
    "psa",
]

PROBLEM = """\
title = "A problem"

[data]
name = "overlapping_classes"
points = 40

[measured]
points = 20

[network]
hidden = [3, 2]
noise = "logistic"
states = [0, 1]
objective = "logistic_loss"
scale = 2

[training]
estimator = "concrete(temperature=1.0)"
rate = 0.1
momentum = 0
batch = 10
checkpoints = [5, 0]
"""

SUITE = """\
title = "A suite"
problems = ["mine.toml"]
estimators = ["psa", "concrete(temperature=0.5)"]
draws = 100
averages = [3, 10]
dtype = "float32"
figure = "accuracy"

[sweep]
by = "width"
"network.hidden" = [[2, 2], [4, 4]]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("suites")


def write(folder, suite=SUITE, problem=PROBLEM):
    (folder / "mine.toml").write_text(problem)
    (folder / "suite.toml").write_text(suite)
    return folder / "suite.toml"


def refusal(path, load=load_suite):
    """The sentence, without the folder."""
    with pytest.raises(GradbenchError) as caught:
        load(path)
    return str(caught.value).replace(f"{path.parent}/", "")


# --- what comes with the package ---

TOYS = {"distance", "p-norm", "polynomial", "quadratic", "three-bits"}


def test_the_suites_and_problems_of_the_package_are_listed():
    trained = {"conv", "depth", "digits", "psa", "quick", "vae", "weights", "width"}
    more = {"initialisation", "train-cifar", "train-digits", "train-fashion", "train-mnist"}
    more |= {"train-hashing", "train-vae", "train-weights"}
    assert list_suites() == sorted(trained | more | {"seeds", "temperature", "toy", "zoo"})
    vaes = {"vae-12", "vae-12-12", "vae-200", "vae-200-200", "vae-8", "vae-8-8"}
    wide = {"cifar", "fashion-conv", "fashion-dense", "mnist-conv", "mnist-dense"}
    wide |= {"newsgroups-codes", "r8-codes"}
    others = {"digits-weights", "digits-weights-tanh"}
    others |= {"conv", "digits", "digits-train", "growth", "hashing", "psa", "quick", "weights"}
    assert list_problems() == sorted(others | vaes | wide | TOYS)


@pytest.mark.parametrize("name", ["conv", "depth", "digits", "psa", "quick", "vae", "width"])
def test_every_packaged_suite_loads_with_all_methods_of_the_figure(name):
    suite = load_suite(name)
    more = {"psa": ["arm(descendants='independent')"], "vae": ["reinforce(signals='whole')"]}
    published = more.get(name, [])  # the paper's, beside ours
    assert suite.name == name
    assert list(suite.estimators) == [*FIGURE[:2], *published, *FIGURE[2:]]
    assert all(canonical(estimator) == estimator for estimator in suite.estimators)
    assert len({problem.name for problem in suite.problems}) == len(suite.problems) > 0


@pytest.mark.parametrize("name", list_problems())
def test_every_packaged_problem_has_data_that_fit_its_network(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path))  # data sets of the literature are not here
    problem = load_problem(name)
    if (of := problem.data.name.removesuffix("_thresholded")) in SOURCES:
        with pytest.raises(GradbenchError) as caught:
            load_data(problem.data.name, problem.data.arguments)
        assert_one_sentence(caught, f"gradbench data get {of}", f"gradbench data add {of}")
        return
    for data in (problem.data, problem.measured):
        inputs, targets = load_data(data.name, data.arguments)
        assert len(inputs) == len(targets) > 0
        if name in TOYS:
            assert inputs.shape == (1, 0)
        elif problem.network.objective == "logistic_loss":
            assert set(targets) == {-1, 1} and problem.network.outputs == 1
        elif problem.network.objective == "elbo":
            np.testing.assert_array_equal(targets, inputs)
        elif problem.network.objective == "multinomial_likelihood":
            assert targets.shape == (len(inputs), problem.network.outputs) and np.all(targets >= 0)
        else:
            assert set(targets) == set(range(problem.network.outputs))


def test_the_psa_suite_is_the_experiment_of_the_paper():
    suite = load_suite("psa")
    (problem,) = suite.problems
    assert problem.network.hidden == (5, 5, 5) and problem.network.states == (0, 1)
    assert problem.measured == problem.data and problem.data.arguments == {"points": 200}
    training = problem.training
    assert (training.estimator, training.rate, training.momentum) == ("reinforce", 0.03, 0.9)
    assert training.batch == 10 and problem.checkpoints == (1, 100, 2000)
    assert suite.draws == 20000 and max(suite.averages) == 9000 and suite.dtype == "float64"


def test_the_digits_are_measured_on_256_test_images_at_five_checkpoints():
    (problem,) = load_suite("digits").problems
    assert problem.data.arguments == {"split": "train"}
    assert problem.measured.arguments == {"split": "test", "examples": 256}
    assert problem.network.hidden == (8, 8) and len(problem.checkpoints) == 5


def test_width_and_depth_vary_one_thing_at_a_fixed_scale():
    width, depth = load_suite("width"), load_suite("depth")
    assert [p.network.hidden for p in width.problems] == [(w, w) for w in range(2, 11)]
    assert [p.network.hidden for p in depth.problems] == [(4,) * n for n in range(1, 7)]
    assert [p.label for p in depth.problems] == list(range(1, 7)) and depth.by == "depth"
    assert width.problems[2].name == "growth[width=4]"
    for problem in (*width.problems, *depth.problems):
        assert problem.network.initialisation == "fixed_scale"
        assert problem.checkpoints == (0,)


@pytest.mark.parametrize(
    ("name", "draws", "problems"),
    [
        ("conv", 500, {"conv": (0, 3, 10)}),
        ("vae", 500, {"vae-8": (0, 10), "vae-8-8": (0, 10)}),
        (
            "weights",
            1000,
            {f"weights[{variant}]": (0, 100) for variant in ("mirror", "binary-connect")},
        ),
    ],
)
def test_the_quick_form_of_a_suite_is_smaller_and_otherwise_the_same(name, draws, problems):
    full, quick = load_suite(name), load_suite(name, quick=True)
    assert (full.name, quick.name) == (name, f"{name}-quick")
    assert quick.draws == draws < full.draws
    assert {problem.name: problem.checkpoints for problem in quick.problems} == problems
    assert {problem.name for problem in full.problems} >= set(problems)
    assert (full.title, full.figure) == (quick.title, quick.figure)
    assert set(quick.estimators) <= set(full.estimators)
    assert full.figure == "training" and "exact" in full.estimators


def test_the_quick_form_of_a_suite_reaches_into_its_problems():
    conv, vae, weights = (load_suite(name, True).problems[0] for name in ("conv", "vae", "weights"))
    assert conv.network.hidden == (ConvForm(1, kernel=3, stride=2), ConvForm(2, kernel=2))
    assert load_problem("conv").network.hidden[0].padding == 1
    assert vae.measured.arguments == {"split": "test", "examples": 50}
    assert weights.data.arguments == {"points": 50} == weights.measured.arguments


def test_the_optimisers_of_binary_weights_are_variants_of_one_problem():
    suite = load_suite("weights")
    assert {problem.base for problem in suite.problems} == {"weights"}
    trainings = {p.name: (p.network.weights.noise, p.training.weights) for p in suite.problems}
    assert trainings == {
        "weights[mirror]": ("logistic", WeightTraining("mirror_descent", 1.0)),
        "weights[binary-connect]": ("uniform", WeightTraining("mirror_descent", 1.0)),
        "weights[triangular]": ("triangular", WeightTraining("mirror_descent", 0.3)),
        "weights[exponentiated-uniform]": (
            "uniform",
            WeightTraining("exponentiated_gradient", 1.0),
        ),
        "weights[sgd]": ("logistic", WeightTraining("sgd", 3.0)),
        "weights[proximal]": ("logistic", WeightTraining("proximal_kl", 1.0, 0.01)),
    }
    # Nothing else differs.
    assert len({p.data.arguments["points"] for p in suite.problems}) == 1
    assert {p.network.hidden for p in suite.problems} == {(4,)}


def test_listing_suites_and_problems_with_their_titles_imports_no_jax_and_no_pydantic():
    code = (
        "import sys; from gradbench.suites.library import PROBLEMS, SUITES;"
        "print(SUITES.facts('psa').summary, len(PROBLEMS.names()));"
        "print([m for m in ('jax', 'pandas', 'pydantic') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{load_suite('psa').title} {len(list_problems())}", "[]"]


@pytest.mark.parametrize(("known", "load"), [(SUITES, load_suite), (PROBLEMS, load_problem)])
def test_the_line_about_a_file_in_its_registry_is_its_title(known, load):
    for name in known.names():
        assert known.facts(name).summary == load(name).title


# --- a user's files ---


def test_a_users_suite_finds_its_problems_beside_itself(folder, tmp_path, monkeypatch):
    path = write(folder)
    monkeypatch.chdir(tmp_path)
    suite = load_suite(path)
    assert [problem.name for problem in suite.problems] == ["mine[width=2]", "mine[width=4]"]
    problem = suite.problems[1]
    assert problem.network.hidden == (4, 4) and problem.network.scale == 2
    assert problem.measured.arguments == {"points": 20}
    assert problem.training.estimator == "concrete(temperature=1)"
    assert problem.checkpoints == (0, 5)
    assert suite.dtype == "float32" and suite.replicates == 1


def test_a_users_suite_can_name_packaged_problems(folder):
    suite = load_suite(write(folder, SUITE.replace("mine.toml", "psa")))
    assert suite.problems[0].name == "psa[width=2]"


def test_any_number_can_be_swept(folder):
    text = SUITE.replace('"network.hidden" = [[2, 2], [4, 4]]', '"network.scale" = [0.5, 2]')
    suite = load_suite(write(folder, text.replace('"width"', '"scale"')))
    assert [(p.name, p.network.scale) for p in suite.problems] == [
        ("mine[scale=0.5]", 0.5),
        ("mine[scale=2]", 2.0),
    ]


# --- the quick form, and variants ---

UNSWEPT = SUITE.partition("[sweep]")[0]  # 8 lines
QUICK = """\
[quick]
draws = 7
averages = [2]
problems = ["mine.toml"]
"network.hidden" = [{ dense = 1, through = [3] }]
"training.checkpoints" = [4, 2]
"measured.points" = 9
"""
VARIANTS = """\
[variants.slow]
"training.rate" = 0.01
[variants.wide-1]
"network.hidden" = [5]
"training.momentum" = 0.5
[variants.same]
"""


def test_a_quick_form_replaces_keys_of_the_suite_and_dotted_keys_of_its_problems(folder):
    path = write(folder, UNSWEPT + QUICK)
    full, quick = load_suite(path), load_suite(path, quick=True)
    assert full == load_suite(write(folder, UNSWEPT))
    assert (full.name, quick.name) == ("suite", "suite-quick")
    assert (quick.draws, quick.averages, quick.dtype) == (7, (2,), "float32")
    (problem,) = quick.problems
    (before,) = full.problems
    assert problem.network == replace(before.network, hidden=(DenseForm(1, (3,)),))
    assert problem.training == replace(before.training, checkpoints=(2, 4))
    assert problem.measured.arguments == {"points": 9}
    assert problem.data == before.data and problem.name == before.name == "mine"


def test_a_quick_form_goes_before_a_sweep_and_variants(folder):
    quick = QUICK.replace('"network.hidden" = [{ dense = 1, through = [3] }]', "")
    swept = load_suite(write(folder, f"{SUITE}{quick}"), quick=True)
    assert [(p.network.hidden, p.checkpoints) for p in swept.problems] == [
        ((2, 2), (2, 4)),
        ((4, 4), (2, 4)),
    ]
    varied = load_suite(write(folder, UNSWEPT + VARIANTS + QUICK), quick=True)
    assert [p.network.hidden for p in varied.problems] == [
        (DenseForm(1, (3,)),),
        (5,),
        (DenseForm(1, (3,)),),
    ]
    sweep = '[quick.sweep]\nby = "scale"\n"network.scale" = [3]\n'
    replaced = load_suite(write(folder, SUITE + sweep), quick=True)
    assert [p.name for p in replaced.problems] == ["mine[scale=3]"]


def test_variants_are_problems_with_their_own_names_and_a_common_base(folder):
    suite = load_suite(write(folder, UNSWEPT + VARIANTS))
    slow, wide, same = suite.problems
    assert [p.name for p in suite.problems] == ["mine[slow]", "mine[wide-1]", "mine[same]"]
    assert {(p.base, p.label) for p in suite.problems} == {("mine", None)} and suite.by is None
    assert slow.training == replace(same.training, rate=0.01) and slow.network == same.network
    assert wide.network == replace(same.network, hidden=(5,)) and wide.training.momentum == 0.5
    assert same == replace(load_problem(folder / "mine.toml"), name="mine[same]")


def test_every_problem_has_every_variant(folder):
    text = UNSWEPT.replace('["mine.toml"]', '["quick", "mine.toml"]')
    suite = load_suite(write(folder, text + '[variants.a]\n[variants."b c"]\n'))
    names = ["quick[a]", "quick[b c]", "mine[a]", "mine[b c]"]
    assert [p.name for p in suite.problems] == names
    assert [p.base for p in suite.problems] == ["quick", "quick", "mine", "mine"]


def test_the_values_of_a_sweep_share_no_base(folder):
    suite = load_suite(write(folder))
    assert [p.base for p in suite.problems] == [p.name for p in suite.problems]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "suite.toml, line 1: the suite has no quick form; add a table [quick], or use draws"),
        ("[quick]\ndraws = 0", "suite.toml, line 10, quick: draws is 0; give a whole number of at"),
        ("[quick]\ndrawz = 3", "suite.toml, line 10, quick: unknown key drawz; did you mean 'dr"),
        ("[quick]\ndraws = 5", "suite.toml, line 5: averages has 10 but draws is 5; average at"),
        (
            "[quick]\naverages = [200]",
            "suite.toml, line 10, quick: averages has 200 but draws is 100; average at most all",
        ),
        (
            '[quick]\nfigure = "growth"',
            'suite.toml, line 10, quick: figure is "growth" without a sweep; add a [sweep]',
        ),
        (
            '[quick]\nproblems = ["mime.toml"]',
            "suite.toml, line 10, quick: cannot read mime.toml: No such file or directory; did you "
            "mean 'mine.toml'?",
        ),
        (
            '[quick]\n"network.hidden" = [0]',
            "suite.toml, line 9, quick: network.hidden[0] is 0; give a whole number of at least 1",
        ),
        (
            '[quick]\n"network.hiden" = [1]',
            "suite.toml, line 9, quick: unknown key network.hiden; did you mean 'hidden'?",
        ),
        (
            "[quick]\nnetwork.hidden = [1]",
            "suite.toml, line 10, quick: unknown key network; choose",
        ),
        (
            '[quick.sweep]\nby = "witdh"\n"network.hidden" = [[1]]',
            "suite.toml, line 9, quick: sweep.by is \"witdh\"; did you mean 'width'?",
        ),
        (
            '[quick]\n"data.points" = 0',
            "suite.toml, line 9, quick: data.points is 0; give a whole number from 1 to 10000000",
        ),
    ],
)
def test_what_is_wrong_in_a_quick_form_is_told_with_its_line(folder, text, sentence):
    def quick(path):
        return load_suite(path, quick=True)

    assert refusal(write(folder, f"{UNSWEPT}{text}\n"), quick).startswith(sentence)


def test_what_is_wrong_in_the_file_of_a_problem_is_told_of_it_also_in_the_quick_form(folder):
    path = write(folder, UNSWEPT + QUICK, PROBLEM.replace('"logistic"', "3"))
    with pytest.raises(GradbenchError, match=r"mine.toml, line 12: network.noise is 3"):
        load_suite(path, quick=True)


def test_a_quick_form_that_is_no_table_is_refused_also_without_it(folder):
    sentence = "suite.toml, line 9: quick is 3; make it a table, with one key a line"
    assert refusal(write(folder, f"{UNSWEPT}quick = 3\n")) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[variants]",
            "suite.toml, line 9: variants is empty; add a table, such as [variants.other]",
        ),
        (
            '[variants.a]\n[sweep]\nby = "width"\n"network.hidden" = [[2]]',
            "suite.toml, line 9: there are a sweep and variants; take one of them",
        ),
        (
            "[variants]\na = 3",
            "suite.toml, line 10: variants.a is 3; make it a table, with one key a line",
        ),
        (
            '[variants.ok]\n[variants.my-own]\n"training.rate" = 0',
            "suite.toml, line 10, variants.my-own: training.rate is 0; give a finite number above",
        ),
        (
            '[variants."a b"]\n"training.rat" = 1',
            "suite.toml, line 9, variants.\"a b\": unknown key training.rat; did you mean 'rate'?",
        ),
        (
            '[variants.a]\n"data.name" = "digts"',
            "suite.toml, line 9, variants.a: data.name is \"digts\"; did you mean 'digits'?",
        ),
    ],
)
def test_what_is_wrong_in_variants_is_told_with_their_name_and_line(folder, text, sentence):
    assert refusal(write(folder, f"{UNSWEPT}{text}\n")).startswith(sentence)


def test_a_figure_of_training_without_training_is_refused(folder):
    path = write(folder, UNSWEPT.replace('"accuracy"', '"training"'), PROBLEM)
    assert load_suite(path).figure == "training"
    write(folder, path.read_text(), PROBLEM[: PROBLEM.index("[training]")])
    assert refusal(path) == (
        "suite.toml, line 7: figure is \"training\" but the problem 'mine' has no [training]; add "
        "it, or take another figure"
    )


# --- identity ---


def test_a_suite_as_dict_survives_json_and_names_everything_it_depends_on():
    suite = load_suite("width")
    content = suite.as_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["problems"][0]["network"]["hidden"] == [2, 2]
    assert content["problems"][0]["data"]["arguments"] == {"points": 100}


def hash_of(suite):
    return suite_hash(load_suite(suite).as_dict())


# Of json.dumps(suite.as_dict()). Another one orphans stored results: such a suite is to be
# run anew.
DIGESTS = {
    "conv": "37d562e873636a6e",
    "conv-quick": "ef79c04fff85fc7e",
    "depth": "9cf590888d84bbdf",
    "digits": "4f404ec4215c0cd5",
    "initialisation": "82e701470187f8d7",
    "psa": "0877f18704079c88",
    "quick": "f3ff4f5e61b128eb",
    "seeds": "7f6d4a24c12b349c",
    "seeds-quick": "d53e44e2980fb881",
    "temperature": "0c62d1cde3d6d242",
    "temperature-quick": "eadf65f417ca1e31",
    "toy": "76e05b8605bac8ee",
    "toy-quick": "cc15b179426f3a57",
    "train-cifar": "a902fa6e78e1df23",
    "train-cifar-quick": "642d115f343c97ff",
    "train-digits": "6600225b97c9b899",
    "train-digits-quick": "dc2caf3fa68fc43d",
    "train-fashion": "6d587bd4d18b7e7b",
    "train-fashion-quick": "ecc42aa0e9000a18",
    "train-hashing": "8d5267df7d7861fb",
    "train-hashing-quick": "827629c5df3172d3",
    "train-mnist": "b3fc894c58e24205",
    "train-mnist-quick": "db78a75c2db58260",
    "train-vae": "5c0ac40cc882a336",
    "train-vae-quick": "02ba53317abee461",
    "train-weights": "b048acfe48db5aa0",
    "train-weights-quick": "45ce67775895e2d4",
    "vae": "3b63b7dd965d3405",
    "vae-quick": "b8eb71c2f56445de",
    "weights": "6c15e4f3a6ce9a31",
    "weights-quick": "ead2333c0c5a9519",
    "width": "61554e4cff020652",
    "zoo": "bfe1446aa9775500",
    "zoo-quick": "a70d052b537e3040",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_content_of_every_packaged_suite_is_byte_for_byte_what_it_was(name):
    suite = load_suite(name.removesuffix("-quick"), quick=name.endswith("-quick"))
    content = json.dumps(suite.as_dict()).encode()
    assert hashlib.blake2b(content, digest_size=8).hexdigest() == DIGESTS[name]


def test_the_stored_digests_are_of_all_packaged_suites_and_differ():
    assert {name.removesuffix("-quick") for name in DIGESTS} == set(list_suites())
    assert len(set(DIGESTS.values())) == len(DIGESTS)


@pytest.mark.slow
def test_the_hash_is_the_same_in_another_process_and_differs_between_suites():
    code = (
        "from gradbench.results.manifest import suite_hash;"
        "from gradbench.suites.suite import load_suite;"
        "print(suite_hash(load_suite('psa').as_dict()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [hash_of("psa")]
    assert len({hash_of(name) for name in list_suites()}) == len(list_suites())


def test_a_change_anywhere_changes_the_hash(folder):
    before = hash_of(write(folder))
    changes = [("points = 20", "points = 21"), ("rate = 0.1", "rate = 0.2"), ("[0, 1]", "[-1, 1]")]
    for old, new in changes:
        assert hash_of(write(folder, problem=PROBLEM.replace(old, new))) != before
    assert hash_of(write(folder, "# a comment\n" + SUITE)) == before


def test_checkpoints_are_named_by_their_epoch_and_untrained_without_training(folder, tmp_path):
    write(folder)
    trained = load_problem(folder / "mine.toml")
    assert [trained.checkpoint_name(epoch) for epoch in trained.checkpoints] == [
        "epoch 0",
        "epoch 5",
    ]
    write(tmp_path, problem=PROBLEM[: PROBLEM.index("[training]")])
    untrained = load_problem(tmp_path / "mine.toml")
    assert [untrained.checkpoint_name(epoch) for epoch in untrained.checkpoints] == ["untrained"]


def test_fewer_draws_drop_the_averages_that_need_more():
    suite = load_suite("psa").with_draws(500)
    assert suite.draws == 500 and suite.averages == ()
    assert replace(suite, draws=20000, averages=load_suite("psa").averages) == load_suite("psa")


@pytest.mark.parametrize("draws", [np.int64(500), np.uint16(500), np.array(500)])
def test_draws_of_numpy_are_kept_as_a_number_of_python(draws):
    suite = load_suite("psa").with_draws(draws)
    assert type(suite.draws) is int and suite == load_suite("psa").with_draws(500)
    assert json.loads(json.dumps(suite.as_dict()))["draws"] == 500


@pytest.mark.parametrize("draws", [0, -5, 1.5, "many", True, np.True_, np.float64(5), np.int64(0)])
def test_draws_that_are_no_positive_number_are_refused(draws):
    with pytest.raises(GradbenchError, match=f"the number of draws is {draws}; give a whole"):
        load_suite("quick").with_draws(draws)


# --- bad input: one sentence that names file, line, key, value and remedy ---


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "pss",
            "unknown suite 'pss', which is no path of a .toml file either; did you mean 'psa'?",
        ),
        ("none.toml", "cannot read none.toml: No such file or directory; give the path of"),
        ("a/b", "cannot read a/b: No such file or directory"),
        ("nul\0.toml", "cannot read nul\0.toml: embedded null"),
    ],
)
def test_a_suite_that_is_not_there_is_refused(name, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GradbenchError, match=sentence.replace("?", r"\?")):
        load_suite(name)


@pytest.mark.parametrize("value", [3, None, ["psa"], {}])
@pytest.mark.parametrize(("kind", "load"), [("suite", load_suite), ("problem", load_problem)])
def test_what_is_no_name_and_no_path_is_refused(value, kind, load):
    with pytest.raises(GradbenchError) as caught:
        load(value)
    told = '["psa"]' if value == ["psa"] else value
    sentence = f"the {kind} is {told}; give its name or the path of a .toml file"
    assert str(caught.value) == sentence


def test_a_folder_is_no_suite(tmp_path):
    (tmp_path / "d.toml").mkdir()
    assert refusal(tmp_path / "d.toml").startswith("cannot read d.toml: Is a directory")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"title = \n", "bad.toml is not valid TOML: Invalid value (at line 1, column 9); mend"),
        (b"\xff", "bad.toml is not valid TOML: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"a = " + b"9" * 5000, "bad.toml is not valid TOML: Exceeds the limit"),
        (b"a = " + b"[" * 9999, "bad.toml is not valid TOML: "),
        (b"", "bad.toml: title is missing; add it\nbad.toml: problems is missing; add it"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(content, sentence, tmp_path):
    (tmp_path / "bad.toml").write_bytes(content)
    assert refusal(tmp_path / "bad.toml").startswith(sentence)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("draws = 100", "", "suite.toml: draws is missing; add it"),
        (
            "draws = 100",
            "draw = 100",
            "suite.toml, line 4: unknown key draw; did you mean 'draws'?",
        ),
        (
            "draws = 100",
            "draws = 100\ndraw = 3",
            "suite.toml, line 5: unknown key draw; did you mean 'draws'?",
        ),
        (
            "draws = 100",
            "draws = 0",
            "suite.toml, line 4: draws is 0; give a whole number of at least 1",
        ),
        (
            "draws = 100",
            "draws = -7",
            "suite.toml, line 4: draws is -7; give a whole number of at least 1",
        ),
        (
            "draws = 100",
            "draws = true",
            "suite.toml, line 4: draws is true; give a whole number of at least 1",
        ),
        (
            "draws = 100",
            "draws = 1e3",
            "suite.toml, line 4: draws is 1000.0; give a whole number of at least 1",
        ),
        (
            "draws = 100",
            "draws = 0x" + "f" * 9999,
            "suite.toml, line 4: draws is too large to show; give a whole number of at least 1",
        ),
        (
            "draws = 100",
            'draws = "100"',
            'suite.toml, line 4: draws is "100"; give a whole number of at least 1',
        ),
        (
            '"A suite"',
            '" "',
            'suite.toml, line 1: title is " "; give a text in quotes',
        ),
        (
            '["mine.toml"]',
            "[]",
            "suite.toml, line 2: problems is []; give at least 1 item",
        ),
        (
            '["mine.toml"]',
            '"mine.toml"',
            'suite.toml, line 2: problems is "mine.toml"; give a list, in square brackets',
        ),
        (
            '["mine.toml"]',
            '["mine"]',
            "suite.toml, line 2: unknown problem 'mine', which is no path of a .toml file either; "
            "choose one of cifar, conv, digits, digits-train, digits-weights, digits-weights-tanh, "
            "distance, fashion-conv, fashion-dense, growth, hashing, mnist-conv, mnist-dense, "
            "newsgroups-codes, p-norm, polynomial, psa, quadratic, quick, r8-codes, three-bits, "
            "vae-12, vae-12-12, vae-200, vae-200-200, vae-8, vae-8-8, weights",
        ),
        (
            '["mine.toml"]',
            '["none.toml"]',
            "suite.toml, line 2: cannot read none.toml: No such file or directory; did you mean "
            "'mine.toml'?",
        ),
        (
            '["mine.toml"]',
            '["mine.toml", "./mine.toml"]',
            'suite.toml, line 2: two problems share a name in ["mine", "mine"]; rename a file',
        ),
        (
            '"psa", "con',
            '"psa", "psa()", "con',
            'suite.toml, line 3: estimators[1] is "psa()"; it is there already; give every item '
            "once",
        ),
        (
            "=0.5)",
            "=0.5",
            'suite.toml, line 3: estimators[1] is "concrete(temperature=0.5"; write name or '
            "name(key=literal, ...) with finite numbers, as 'concrete(temperature=0.1)'",
        ),
        (
            "averages = [3, 10]",
            "averages = [3, 101]",
            "suite.toml, line 5: averages has 101 but draws is 100; average at most all draws",
        ),
        (
            '"float32"',
            '"float23"',
            "suite.toml, line 6: dtype is \"float23\"; did you mean 'float32'?",
        ),
        (
            '"accuracy"',
            '"acuracy"',
            "suite.toml, line 7: figure is \"acuracy\"; did you mean 'accuracy'?",
        ),
        (
            'by = "width"',
            "",
            "suite.toml, line 9: sweep.by is missing; add it",
        ),
        (
            SUITE[SUITE.index('"accuracy"') :],
            '"growth"',
            'suite.toml, line 7: figure is "growth" without a sweep; add a [sweep]',
        ),
        (
            '"accuracy"',
            '"growth"',
            'suite.toml, line 7: figure is "growth" but the problem has several checkpoints; take '
            "a problem with one",
        ),
        (
            'by = "width"',
            'by = "layer"',
            'suite.toml, line 10: sweep.by is "layer"; choose one of depth, hidden, width',
        ),
        (
            'by = "width"',
            'by = "width"\nx = 1',
            "suite.toml, line 9: sweep has 2 keys besides by; give one, such as "
            '"network.hidden" = [[2], [3]]',
        ),
        (
            "[4, 4]",
            "[4, 0]",
            'suite.toml, line 11: sweep."network.hidden"[1][1] is 0; give a whole number of at '
            "least 1",
        ),
        (
            "[4, 4]",
            "[4, 5]",
            'suite.toml, line 11: sweep."network.hidden"[1] is [4, 5]; give layers of one width in '
            "a sweep by width",
        ),
        (
            "[4, 4]",
            "[2]",
            'suite.toml, line 11: sweep."network.hidden"[1] is [2]; it is there already; give '
            "every item once",
        ),
        (
            '"network.hidden"',
            '"network.hiden"',
            "suite.toml, line 11, sweep: unknown key network.hiden; did you mean 'hidden'?",
        ),
        (
            '"network.hidden"',
            "network.hidden",
            "suite.toml, line 11: sweep.network is { hidden = [[2, 2], [4, 4]] }; give a list, in "
            "square brackets",
        ),
        (
            '"network.hidden"',
            '"title.x"',
            "suite.toml, line 11, sweep: title is { x = [2, 2] }; give a text in quotes\n"
            "suite.toml, line 11, sweep: title is { x = [4, 4] }; give a text in quotes",
        ),
    ],
)
def test_what_is_wrong_in_a_suite_is_told_in_one_sentence(folder, old, new, sentence):
    assert old in SUITE
    assert refusal(write(folder, SUITE.replace(old, new, 1))) == sentence


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "[network]",
            "[netwrk]",
            "mine.toml, line 10: unknown key netwrk; did you mean 'network'?",
        ),
        (
            "hidden = [3, 2]",
            "",
            "mine.toml, line 10: network.hidden is missing; add it",
        ),
        (
            "hidden = [3, 2]",
            "hidden = [3, 2]\nhiden = 1",
            "mine.toml, line 12: unknown key network.hiden; did you mean 'hidden'?",
        ),
        (
            "hidden = [3, 2]",
            "hidden = []",
            "mine.toml, line 11: network.hidden is []; give at least 1 item",
        ),
        (
            "hidden = [3, 2]",
            "hidden = [3, 2.0]",
            "mine.toml, line 11: network.hidden[1] is 2.0; give a whole number of at least 1",
        ),
        (
            "states = [0, 1]",
            "states = [1, 1]",
            "mine.toml, line 13: network.states[1] is 1; it is there already; give every item once",
        ),
        (
            "states = [0, 1]",
            "states = [0, 1, 2]",
            "mine.toml, line 13: network.states is [0, 1, 2]; give two numbers, such as [0, 1] or "
            "[-1, 1]",
        ),
        (
            "scale = 2",
            "scale = nan",
            "mine.toml, line 15: network.scale is nan; give a finite number above 0",
        ),
        (
            "rate = 0.1",
            "rate = -0.1",
            "mine.toml, line 19: training.rate is -0.1; give a finite number above 0",
        ),
        (
            "momentum = 0",
            "momentum = 1",
            "mine.toml, line 20: training.momentum is 1; give a finite number of at least 0 and "
            "below 1",
        ),
        (
            "[5, 0]",
            "[5, 5]",
            "mine.toml, line 22: training.checkpoints[1] is 5; it is there already; give every "
            "item once",
        ),
        (
            '"overlapping_classes"',
            '"overlaping"',
            "mine.toml, line 4: data.name is \"overlaping\"; did you mean 'overlapping_classes'?",
        ),
        (
            "points = 40",
            "poins = 40",
            "mine.toml, line 5: unknown key data.poins; did you mean 'points'?",
        ),
        (
            "points = 20",
            "points = 0",
            "mine.toml, line 8: measured.points is 0; give a whole number from 1 to 10000000",
        ),
        (
            "batch = 10",
            "batch = 10\nweights = 1",
            "mine.toml, line 22: training.weights is 1; make it a table, with one key a line",
        ),
        (
            "[training]",
            '[training.weights]\noptimiser = "sgd"\n[training]',
            "mine.toml, line 17: training.weights.rate is missing; add it",
        ),
        (
            "[training]",
            '[training.weights]\noptimiser = "sgd"\nrate = 1\nstrength = -1\n[training]',
            "mine.toml, line 20: training.weights.strength is -1; give a finite number of at least "
            "0",
        ),
        (
            "[training]",
            '[training.weights]\noptimiser = "sgd"\nrate = 1\nmomentum = 0.9\n[training]',
            "mine.toml, line 20: unknown key training.weights.momentum; choose one of "
            "optimiser, rate, strength, threshold",
        ),
        (
            'title = "A problem"',
            "title = 1979-05-27",
            "mine.toml, line 1: title is datetime.date(1979, 5, 27); give a text in quotes",
        ),
        (
            'title = "A problem"',
            'title = "A problem"\n"a b" = 1',
            'mine.toml, line 2: unknown key "a b"; choose one of data, measured, network, '
            "parameters, reference, title, training",
        ),
    ],
)
def test_what_is_wrong_in_a_problem_is_told_in_one_sentence(tmp_path, old, new, sentence):
    assert old in PROBLEM
    write(tmp_path, problem=PROBLEM.replace(old, new, 1))
    assert refusal(tmp_path / "mine.toml", load_problem) == sentence


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("batch", "bach", "line 21: unknown key training.bach; did you mean 'batch'?"),
        ("[network]", "[netwrok]", "line 10: unknown key netwrok; did you mean 'network'?"),
        ("name =", "nmae =", "line 4: unknown key data.nmae; did you mean 'name'?"),
        ("hidden", "hiden", "line 11: unknown key network.hiden; did you mean 'hidden'?"),
        ("title", "titel", "line 1: unknown key titel; did you mean 'title'?"),
        ("[data]", "[dta]", "line 3: unknown key dta; did you mean 'data'?"),
    ],
)
def test_a_misspelt_required_key_is_told_as_misspelt_and_not_as_missing(
    tmp_path, old, new, sentence
):
    write(tmp_path, problem=PROBLEM.replace(old, new, 1))
    assert refusal(tmp_path / "mine.toml", load_problem) == f"mine.toml, {sentence}"


def test_all_faults_of_a_problem_are_told_at_once_in_the_order_of_the_file(tmp_path):
    changes = [
        ("points = 20", "points = 0"),
        ("[3, 2]", "[3, 0, { conv = 1, kernle = 2, stride = 0 }]"),
        ('"logistic"', '"logstic"'),
        ("scale = 2", "scale = -1"),
        ("batch = 10", "bach = 10"),
        ("[5, 0]", "[5, -1]"),
    ]
    write(tmp_path, problem=changed(PROBLEM, *changes))
    assert refusal(tmp_path / "mine.toml", load_problem).splitlines() == [
        "mine.toml, line 8: measured.points is 0; give a whole number from 1 to 10000000",
        "mine.toml, line 11: network.hidden[1] is 0; give a whole number of at least 1",
        "mine.toml, line 11: network.hidden[2].stride is 0; give a whole number of at least 1",
        "mine.toml, line 11: unknown key network.hidden[2].kernle; did you mean 'kernel'?",
        "mine.toml, line 12: network.noise is \"logstic\"; did you mean 'logistic'?",
        "mine.toml, line 15: network.scale is -1; give a finite number above 0",
        "mine.toml, line 21: unknown key training.bach; did you mean 'batch'?",
        "mine.toml, line 22: training.checkpoints[1] is -1; give a whole number of at least 0",
    ]


def test_all_faults_of_a_suite_and_of_its_problems_are_told_at_once(folder):
    suite = changed(SUITE, ("draws = 100", "draw = 100"), ('"float32"', '"float23"'))
    path = write(folder, suite, changed(PROBLEM, ("points = 40", "points = 0.5")))
    assert refusal(path).splitlines() == [
        "suite.toml, line 4: unknown key draw; did you mean 'draws'?",
        "suite.toml, line 6: dtype is \"float23\"; did you mean 'float32'?",
        "mine.toml, line 5: data.points is 0.5; give a whole number from 1 to 10000000",
    ]


def test_the_command_line_tells_all_faults_with_exit_code_2(folder, capsys):
    path = write(folder, changed(SUITE, ("draws = 100", "draws = 0"), ('"A suite"', "3")))
    assert main(["run", str(path), "--dry-run"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 2 and "title is 3" in told and "draws is 0" in told


def test_what_is_wrong_in_a_problem_of_a_sweep_is_told_of_the_problems_file(folder):
    sentence = refusal(write(folder, problem=PROBLEM.replace('"logistic"', "3")))
    assert sentence == "mine.toml, line 12: network.noise is 3; give a text in quotes"


JUNK = [
    "0",
    "-1",
    "1e400",
    "nan",
    "true",
    "''",
    "[]",
    "[[]]",
    "{}",
    '"psa("',
    "1979-05-27",
    "=",
    "#",
]


def mutated(text: str, rng: random.Random) -> str:
    """The text after one to three random edits of its lines, values or characters."""
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        k = rng.randrange(len(lines))
        edit = rng.randrange(5)
        if edit == 0:
            del lines[k]
        elif edit == 1:
            lines.insert(k, rng.choice(lines))
        elif edit == 2 and "=" in lines[k]:
            lines[k] = lines[k].partition("=")[0] + "= " + rng.choice(JUNK)
        elif edit == 3:
            lines[k] = lines[k].replace(rng.choice(lines[k] or "x"), rng.choice("az.0[]\"' \0"), 1)
        else:
            rng.shuffle(lines)
        text = "\n".join(lines) or "\n"
    return text


@given(
    seed=st.integers(0, 2**32),
    which=st.sampled_from([SUITE, UNSWEPT + VARIANTS + QUICK, PROBLEM]),
    quick=st.booleans(),
)
@pytest.mark.slow
def test_a_mutated_file_is_read_or_refused_in_one_sentence(folder, seed, which, quick):
    changed = mutated(which, random.Random(seed))
    suite, problem = (SUITE, changed) if which is PROBLEM else (changed, PROBLEM)
    try:
        read = load_suite(write(folder, suite, problem), quick)
    except GradbenchError as error:
        for line in str(error).split("\n"):
            assert ".toml" in line and ("; " in line or "?" in line)
    else:
        assert read.problems and read.estimators and read.draws >= 1
        json.dumps(read.as_dict(), allow_nan=False)
