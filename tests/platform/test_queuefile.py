"""queues.yaml: what is understood, what is refused in which line, who may submit."""

from __future__ import annotations

import pytest
from heliostat.queuefile import DEFAULT_TEXT, BadQueueFile, diff, doubts, parse, with_quotas
from heliostat.queuefile.check import shown

TREE = """\
default: research
queues:
  company:
    limit: {gpu: 8}
  research:
    parent: company
    quota: {gpu: 4, cpu: 8.5, memory: 64GiB}
    lending_limit: {gpu: 2}
    user_limit: {gpu: 2}
    weight: 3
    rotate: false
    preemption_budget: 12
    submit:
      - {project: [vision, nlp], up_to: high}
      - {role: admin}
  production:
    parent: company
    quota: {gpu: 2}
    limit: {gpu: 6}
    priority: 200
    submit:
      - {project: ops, user: ada, up_to: critical}
"""


def test_the_default_file_is_one_queue_with_the_whole_cluster() -> None:
    (queue,) = parse(DEFAULT_TEXT).to_core(["a100"])
    assert (queue.name, queue.quota, queue.limit) == ("default", (("a100", -1), ("cpu", -1), ("memory", -1)), ())


def test_amounts_are_the_cores_integers_and_parents_come_first() -> None:
    company, production, research = parse(TREE).to_core()
    assert company.quota == (("cpu", 8500), ("gpu", 6000), ("memory", 64 * 2**30))
    assert research.quota == (*company.quota[:1], ("gpu", 4000), ("memory", 64 * 2**30))
    assert (research.weight, research.rotate, research.lending_limit) == (3, False, (("gpu", 2000),))
    assert (production.parent, production.priority, production.limit) == ("company", 200, (("gpu", 6000),))


def test_the_bound_of_a_queue_is_the_smallest_limit_on_the_way_up() -> None:
    file = parse(TREE)
    assert file.bound("research", "gpu") == (8000, "company")
    assert file.bound("production", "gpu") == (6000, "production")
    assert file.bound("research", "cpu") == (-1, "")


BAD = [
    ("no YAML", "queues: [", 1, "not valid YAML"),
    ("an alias", "queues: {a: &x {}, b: *x}", 1, "aliases"),
    ("an unknown key at the top", "queue: {}", 1, "unknown key 'queue'"),
    ("an unknown key of a queue", "queues:\n  a:\n    quta: {gpu: 1}", 3, "unknown key 'quta'"),
    ("a queue written twice", "queues:\n  a: {}\n  b: {}\n  a: {}", 4, "'a' is here twice"),
    ("no queue at all", "", 1, "no queue"),
    ("a bad name", "queues:\n  Big Queue: {}", 2, "queue name"),
    ("an unknown parent", "queues:\n  a: {parent: b}", 2, "parent 'b'"),
    ("a circle", "queues:\n  a: {parent: b}\n  b: {parent: a}", 2, "own ancestor"),
    ("a negative amount", "queues:\n  a:\n    quota: {gpu: -1}", 3, "quota: gpu"),
    ("too many decimals", "queues:\n  a:\n    quota: {gpu: 0.0001}", 3, "three decimals"),
    ("a word as amount", "queues:\n  a:\n    quota: {gpu: many}", 3, "'many'"),
    ("not a number", "queues:\n  a:\n    quota: {gpu: .nan}", 3, "quota: gpu"),
    ("a bad size", "queues:\n  a:\n    quota: {memory: 5 apples}", 3, "64GiB"),
    ("a bare number as quota", "queues:\n  a:\n    quota: 4", 3, "by resource"),
    ("quota above limit", "queues:\n  a:\n    quota: {gpu: 4}\n    limit: {gpu: 2}", 2, "above its own limit (2)"),
    ("unlimited quota under a limit", "queues:\n  a:\n    quota: {gpu: unlimited}\n    limit: {gpu: 2}", 2, "above"),
    (
        "lending more than the quota",
        "queues:\n  a:\n    quota: {gpu: 1}\n    lending_limit: {gpu: 2}",
        2,
        "lending_limit",
    ),
    (
        "children above the parent",
        "queues:\n  p: {quota: {gpu: 2}}\n  a: {parent: p, quota: {gpu: 2}}\n  b: {parent: p, quota: {gpu: 1}}",
        2,
        "sum",
    ),
    (
        "children above the parent's limit",
        "queues:\n  p: {limit: {gpu: 2}}\n  a: {parent: p, quota: {gpu: 2}}\n  b: {parent: p, quota: {gpu: 1}}",
        2,
        "sum",
    ),
    (
        "a child's limit above the parent's",
        "queues:\n  p: {limit: {gpu: 2}}\n  a: {parent: p, limit: {gpu: 3}}",
        3,
        "limit of its parent",
    ),
    ("an unknown class", "queues:\n  a:\n    submit:\n      - {up_to: urgent}", 4, "'urgent'"),
    ("an unknown role", "queues:\n  a:\n    submit: [{role: king}]", 3, "'king'"),
    ("rules that are no list", "queues:\n  a:\n    submit: {role: admin}", 3, "expected a list"),
    ("a weight of zero", "queues:\n  a: {weight: 0}", 2, "whole number"),
    ("a default that is no leaf", "default: p\nqueues:\n  p: {}\n  a: {parent: p}", 1, "default"),
    ("rotate that is no boolean", "queues:\n  a: {rotate: maybe}", 2, "'maybe'"),
]


@pytest.mark.parametrize(("text", "line", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(BadQueueFile) as caught:
        parse(text)
    assert any(problem.line == line and words in problem.text for problem in caught.value.problems), str(caught.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(BadQueueFile) as caught:
        parse("queues:\n  a: {quta: 1}\n  b: {parent: x}\n")
    assert len(caught.value.problems) == 2


WHO = [
    ("a project's member up to its class", "research", ("vision", "bob", "member", 150), ""),
    ("above the class", "research", ("vision", "bob", "member", 200), "priority"),
    ("another project", "research", ("ocr", "bob", "member", 50), "queue"),
    ("any project's admin by the rule for roles", "research", ("ocr", "eve", "admin", 200), ""),
    ("the right user of the right project", "production", ("ops", "ada", "member", 200), ""),
    ("the right project, the wrong user", "production", ("ops", "bob", "member", 50), "queue"),
]


@pytest.mark.parametrize(("queue", "who", "what"), [case[1:] for case in WHO], ids=[case[0] for case in WHO])
def test_who_may_submit(queue: str, who: tuple[str, str, str, int], what: str) -> None:
    project, user, role, priority = who
    denied = parse(TREE).denied(queue, project=project, user=user, role=role, priority=priority)
    assert (denied.what if denied else "") == what
    if denied:
        assert "queues.yaml line" in denied.rule
        assert denied.remedy


def test_an_unlimited_queue_is_guaranteed_no_more_than_its_limit() -> None:
    (queue,) = parse("queues:\n  a:\n    quota: unlimited\n    limit: {gpu: 2}").to_core(["gpu"])
    assert queue.quota == (("cpu", -1), ("gpu", 2000), ("memory", -1))


def test_a_queue_without_rules_takes_its_parents_and_the_top_is_open() -> None:
    file = parse("queues:\n  p: {submit: [{role: admin}]}\n  a: {parent: p}\n  b: {}")
    assert file.denied("a", project="x", user="u", role="member", priority=50) is not None
    assert file.denied("b", project="x", user="u", role="viewer", priority=200) is None
    assert file.open_to("x", "u", "member") == ("b",)


def test_nobody_may_submit_under_an_empty_list() -> None:
    denied = parse("queues:\n  a: {submit: []}").denied("a", project="x", user="u", role="admin", priority=50)
    assert denied is not None


def test_the_difference_of_two_files_names_fields_and_values() -> None:
    old = parse(TREE)
    new = parse(TREE.replace("quota: {gpu: 2}", "quota: {gpu: 1.5}").replace("    weight: 3\n", "") + "  extra: {}\n")
    told = [str(change) for change in diff(old, new)]
    assert told == ["+ extra", "~ production: quota.gpu 2 -> 1.5", "~ research: weight 3 -> 1"]
    assert diff(old, parse(TREE)) == []


@pytest.mark.parametrize(
    ("key", "amount", "text"),
    [
        ("gpu", 1500, "1.5"),
        ("gpu", -1, "unlimited"),
        ("memory", 2**31, "2GiB"),
        ("cpu", 10000, "10"),
        ("memory", 0, "0"),
    ],
)
def test_amounts_are_shown_as_written(key: str, amount: int, text: str) -> None:
    assert shown(key, amount) == text


# ---- nodes that can be had -------------------------------------------------------------------------------------------

QUEUE = "queues: {default: {quota: unlimited}}\n"


def test_nodes_that_can_be_had_are_divided_as_the_bridge_divides_them() -> None:
    file = parse(QUEUE + "nodes:\n  big: {gpus: 4, cpus: 48, memory: 192GiB, max: 8, min: 1, idle: 90s, join: 1h}\n")
    (pool,) = file.node_pools()
    node = pool.node
    assert (pool.flavor, pool.max_nodes, pool.min_nodes, pool.idle_ms, pool.join_ms) == ("big", 8, 1, 90_000, 3_600_000)
    assert ([slot.device for slot in node.slots], node.slot_cpu_milli) == ([0, 1, 2, 3], 1000)
    assert node.cpu_milli == 48_000 - 4_800 - 4_000
    assert ("big", -1) in file.to_core()[0].quota, "`unlimited` is about flavors to come, too"


BAD_NODES = [
    pytest.param("nodes: {big: {gpus: 4, max: 2}}", "say at least cpus and max", id="no CPUs"),
    pytest.param("nodes: {big: {cpus: 4}}", "say at least cpus and max", id="no budget"),
    pytest.param(
        "nodes: {big: {cpus: 4, max: 1, min: 2}}", r"min \(2\) is above max \(1\)", id="more kept than may be"
    ),
    pytest.param("nodes: {big: {cpus: 4, max: 1, idle: 10}}", "is no time such as", id="a time without a unit"),
    pytest.param("nodes: {big: {cpus: 4, max: 1, join: 25h}}", "is no time such as", id="a time of more than a day"),
    pytest.param("nodes: {big: {cpus: 4, max: 1, gpu: 1}}", "unknown key 'gpu'", id="an unknown key"),
    pytest.param("nodes: {a b: {cpus: 4, max: 1}}", "'a b' is no name of a flavor", id="no flavor"),
    pytest.param("nodes: {big: {cpus: 4, max: many}}", "is no whole number", id="no number"),
]


@pytest.mark.parametrize(("text", "sentence"), BAD_NODES)
def test_nodes_that_cannot_be_meant_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(BadQueueFile, match=sentence):
        parse(QUEUE + text)


def test_a_change_of_the_nodes_is_told() -> None:
    old = parse(QUEUE + "nodes: {big: {cpus: 4, max: 1}, old: {cpus: 4, max: 1}}")
    new = parse(QUEUE + "nodes: {big: {cpus: 4, max: 3}, new: {cpus: 4, max: 1}}")
    assert [str(change) for change in diff(old, new)] == ["~ nodes.big: max_nodes 1 -> 3", "+ nodes.new", "- nodes.old"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("queues: {a: {quota: {gpu: 4}}, b: {quota: {gpu: 4}}}", [], id="as much as there is"),
        pytest.param("queues: {a: {quota: {gpu: 5}}, b: {quota: {gpu: 4}}}", ["gpu sum to 9 (a 5, b 4)"], id="more than that"),
        pytest.param(
            "queues: {a: {quota: {gpu: unlimited}}, b: {quota: {gpu: 1}}}", ["gpu sum to 9 (a unlimited, b 1)"],
            id="all of it and one more",
        ),
        pytest.param(
            "queues: {top: {}, a: {parent: top, quota: {gpu: 6}}, b: {parent: top, quota: {gpu: 3}}}", ["gpu sum to 9 (top 9)"],
            id="children of a parent without a quota: the parent's sum",
        ),
        pytest.param(
            "queues: {top: {quota: unlimited}, a: {parent: top, quota: {gpu: 6}}, b: {parent: top, quota: {gpu: 3}}}",
            ["gpu sum to 9 (a 6, b 3)"], id="children of a parent that has everything",
        ),
        pytest.param("queues: {a: {quota: {cpu: 17}}}", ["cpu sum to 17 (a 17)"], id="CPUs"),
        pytest.param("queues: {a: {quota: {h100: 1}}}", ["a: flavor h100 is on no node of this cluster"], id="a flavor of nobody"),
    ],
)  # fmt: skip
def test_guarantees_that_cannot_be_kept_are_said(text: str, said: list[str]) -> None:
    told = doubts(parse(text), {"gpu": 8_000, "cpu": 16_000})
    assert len(told) == len(said) and all(words in line for words, line in zip(said, told, strict=True)), told
    assert doubts(parse(text), {}) == [], "nothing is known while no node is there"


def test_other_quotas_are_held_to_the_rules_of_the_file() -> None:
    file = parse(TREE)
    assert with_quotas(file, {"research": {"gpu": 5000}}).queues["research"].quota["gpu"] == 5000
    with pytest.raises(BadQueueFile, match=r"production: quota of gpu \(7\) is above its own limit \(6\)"):
        with_quotas(file, {"production": {"gpu": 7000}})
