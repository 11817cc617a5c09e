"""Tests of putting together what is known of a container."""

from agent.platform.container_facts import ContainerFacts, added, bounded, merge, names_only


def test_of_two_sources_the_first_is_believed_and_the_second_fills_in() -> None:
    first = ContainerFacts("x", "docker", "engine", name="web", is_privileged=False, pid=0)
    second = ContainerFacts("x", "containerd", "bundle", name="other", is_privileged=True, pid=7, user="0:0")
    assert merge(first, second) == ContainerFacts(
        "x", "docker", "engine", name="web", is_privileged=False, pid=7, user="0:0"
    )


def test_only_names_of_variables_are_kept_and_bounded() -> None:
    assert names_only(("A=secret", "B", "=x", "A=again")) == ("", "A", "B")
    assert names_only(("x" * 5000,)) == ("x" * 1024,)
    assert len(names_only(tuple(map(str, range(2000))))) == 500


def test_capabilities_beyond_the_usual_are_told_in_one_spelling() -> None:
    assert added(("CAP_CHOWN", "SYS_ADMIN", "cap_net_admin")) == ("cap_net_admin", "cap_sys_admin")


def test_texts_are_bounded() -> None:
    assert bounded(None) is bounded("") is None
    assert bounded("x" * 5000) == "x" * 1024
