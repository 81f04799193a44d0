"""Reading collectives out of HLO text, in the forms that compilers write it."""

import pytest

from transformer.steps.collectives import Collective, collectives, instructions, type_bytes

HEAD = "HloModule jit_step, is_scheduled=true, num_partitions=8\n\n"


def entry(*lines: str, head: str = HEAD, more: str = "") -> str:
    body = "\n".join(f"  {line}" for line in lines)
    return f"{head}{more}ENTRY %main.1_spmd (param: f32[64]) -> f32[64] {{\n{body}\n}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f32[]", 4),
        ("f32[8,64]{1,0}", 2048),
        ("bf16[512,256]{1,0:T(8,128)(2,1)S(1)}", 262144),
        ("(f32[16]{0}, /*index=1*/s32[2], pred[3]{0})", 64 + 8 + 3),
        ("f8e4m3fn[10]{0}", 10),
        ("s4[5]{0}", 3),
        ("(token[], u32[])", 4),
    ],
)
def test_bytes_of_types(text: str, expected: int) -> None:
    assert type_bytes(text) == expected


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1},{2,3},{4,5},{6,7}}", 2),
        ("replica_groups={{0,1,2,3,4,5,6,7}}", 8),
        ("replica_groups=[2,4]<=[8]", 4),
        ("replica_groups=[4,2]<=[4,2]T(1,0)", 2),
        ("replica_groups=mesh['axis_0'=8,'axis_1'=1] {'axis_0'}", 8),
        (
            "replica_groups=mesh['axis_0'=2,'axis_1'=2,'axis_2'=2], device_ids=([2,4]T(1,0)) "
            "{'axis_0','axis_2'}",
            4,
        ),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", 4),
        ("replica_groups={}", 8),
    ],
)
def test_group_sizes(groups: str, size: int) -> None:
    line = f"%all-reduce.1 = f32[64]{{0}} all-reduce(%p), channel_id=1, {groups}, to_apply=%add"
    assert collectives(entry(line)) == [Collective("all-reduce", size, 1, 256, True)]


def test_what_each_kind_sends() -> None:
    """Ring algorithms, for an array of 800 bytes among eight: all-reduce is reduce-scatter and all-gather."""
    assert Collective("all-gather", 8, 1, 800, True).sent == 700
    assert Collective("reduce-scatter", 8, 1, 100, True).sent == 700
    assert Collective("all-reduce", 8, 1, 800, True).sent == 1400
    assert Collective("all-to-all", 8, 1, 800, True).sent == 700
    assert Collective("collective-permute", 8, 1, 800, True).sent == 800


def test_tuples_are_one_collective_and_lone_devices_none() -> None:
    text = entry(
        "%all-reduce.3 = (f32[4]{0}, f32[8]{0}, /*index=2*/f32[]) all-reduce(%a, %b, %c), "
        "replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add",
        "%psum.1 = f32[64]{0} all-reduce(%d), replica_groups={{0},{1},{2},{3}}, to_apply=%add",
        "%x = f32[64]{0} multiply(%psum.1, %psum.1)",
    )
    assert collectives(text) == [Collective("all-reduce", 2, 1, 52, True)]


def test_asynchronous_forms_count_once_by_their_result() -> None:
    text = entry(
        "%all-gather-start.1 = (f32[8]{0}, f32[64]{0}) all-gather-start(%p), channel_id=1, "
        "replica_groups=[1,8]<=[8], dimensions={0}",
        "%all-gather-done.1 = f32[64]{0} all-gather-done(%all-gather-start.1)",
        "%all-reduce-start = f32[16]{0} all-reduce-start(f32[16]{0} %q), replica_groups={{0,1,2,3}}",
        "ROOT %all-reduce-done = f32[16]{0} all-reduce-done(f32[16]{0} %all-reduce-start)",
        "%collective-permute-start = (f32[2]{0}, f32[2]{0}, u32[], u32[]) collective-permute-start(%r), "
        "source_target_pairs={{0,1},{1,2},{2,0}}",
        "%collective-permute-done = f32[2]{0} collective-permute-done(%collective-permute-start)",
    )
    assert collectives(text) == [
        Collective("all-gather", 8, 1, 256, True),
        Collective("all-reduce", 4, 1, 64, True),
        Collective("collective-permute", 3, 1, 8, True),
    ]


def test_wrapped_asynchronous_calls_count_once() -> None:
    wrapped = (
        "%wrapped (p: f32[64]) -> f32[8] {\n"
        "  ROOT %rs = f32[8]{0} reduce-scatter(%p), replica_groups=[1,8]<=[8], dimensions={0}\n}\n\n"
    )
    text = entry(
        "%async-start = ((f32[64]{0}), f32[8]{0}, u32[]) async-start(%p), calls=%wrapped",
        "%async-done = f32[8]{0} async-done(%async-start), calls=%wrapped",
        more=wrapped,
    )
    assert collectives(text) == [Collective("reduce-scatter", 8, 1, 32, True)]


LOOP = """%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %ar = f32[64]{0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add
  %inner = f32[64]{0} fusion(%ar), kind=kLoop, calls=%fused
}

%fused (p: f32[64]) -> f32[64] {
  %ag = f32[64]{0} all-gather(%y), replica_groups=[4,2]<=[8], dimensions={0}
}

%condition (p: (s32[], f32[64])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

"""
WHILE = "%while.1 = (s32[], f32[64]{0}) while(%t), condition=%condition, body=%body"


@pytest.mark.parametrize(
    ("config", "times", "known"),
    [
        (', backend_config={"known_trip_count":{"n":"5"},"known_init_step":{"init":"0"}}', 5, True),
        (', backend_config={"known_trip_count":{"n":5}}', 5, True),
        ("", 1, False),
    ],
)
def test_loops_multiply_where_their_length_is_known(config: str, times: int, known: bool) -> None:
    assert collectives(entry(WHILE + config, more=LOOP)) == [
        Collective("all-gather", 2, times, 256 * times, known),
        Collective("all-reduce", 8, times, 256 * times, known),
    ]


def test_loops_in_loops() -> None:
    trips = ', backend_config={"known_trip_count":{"n":"3"}}'
    outer = f"%outer (p: f32[64]) -> f32[64] {{\n  {WHILE}{trips}\n}}\n\n"
    call = "%w = f32[64] while(%t), condition=%condition, body=%outer" + trips
    times = {line.name: line.times for line in instructions(entry(call, more=LOOP + outer))}
    assert times == {"w": 1, "while.1": 3, "ar": 9, "inner": 9, "ag": 9, "lt": 9}


def test_all_branches_count() -> None:
    branches = "".join(
        f"%branch_{i} (p: f32[64]) -> f32[64] {{\n"
        "  %ar = f32[64]{0} all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add\n}\n\n"
        for i in range(2)
    )
    line = "%c = f32[64]{0} conditional(%i, %a, %b), branch_computations={%branch_0, %branch_1}"
    assert collectives(entry(line, more=branches)) == [Collective("all-reduce", 8, 2, 512, True)]
