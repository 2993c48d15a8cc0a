"""The constants: complete, pinned, and those of the published scripts."""

from __future__ import annotations

from robusteval.shifts.tables import COMMON, CONSTANTS, SIDES, TABLE, VALIDATION, table_digest


def test_every_preset_has_five_rows_for_every_corruption() -> None:
    assert set(CONSTANTS) == set(SIDES)
    for table in CONSTANTS.values():
        assert set(table) == {*COMMON, *VALIDATION}
        assert all(len(rows) == 5 for rows in table.values())


def test_the_pinned_digest_is_that_of_the_constants() -> None:
    assert table_digest().startswith(TABLE)
    assert len(TABLE) == 12


def test_constants_are_those_of_the_scripts_that_made_the_published_sets() -> None:
    """One row of each size by hand, the typo at 224 pixels among them."""
    assert CONSTANTS["imagenet-c"]["elastic_transform"][2] == (244 * 0.05, 244 * 0.01, 244 * 0.02)
    assert CONSTANTS["imagenet-c"]["gaussian_noise"] == (0.08, 0.12, 0.18, 0.26, 0.38)
    assert CONSTANTS["cifar10-c"]["gaussian_noise"] == (0.04, 0.06, 0.08, 0.09, 0.10)
    assert CONSTANTS["cifar10-c"]["shot_noise"] == (500, 250, 100, 75, 50)
    assert CONSTANTS["tiny-imagenet-c"]["impulse_noise"] == (0.01, 0.02, 0.05, 0.08, 0.14)
    assert CONSTANTS["tiny-imagenet-c"]["jpeg_compression"] == (65, 58, 50, 40, 25)
