"""Which tests hold what is promised: failure cases of other tools, hostile input, reliability.

A test that is renamed or lost fails here.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]

#: Rows of the list of failure cases that apply so far; a row's tests are all those called test_case_NN_…
FAILURE_CASES = (*range(1, 7), 8, *range(10, 20), 21, 27, *range(30, 38), 40)

HOSTILE_INPUT = {
    "unreadable": "py/test_data_scan.py::test_unreadable_files_up_to_one_percent_are_left_out_loudly",
    "truncated": "py/test_data_decode.py::test_truncated_files_are_errors",
    "CMYK": "py/test_data_decode.py::test_cmyk_becomes_rgb",
    "16-bit": "py/test_data_decode.py::test_sixteen_bits_give_the_high_byte_and_are_not_clipped",
    "alpha": "py/test_data_decode.py::test_alpha_is_composited_on_white",
    "animated": "py/test_data_decode.py::test_animated_gives_its_first_frame",
    "EXIF-rotated": "py/test_data_decode.py::test_exif_orientation_is_applied",
    "huge in pixels": "py/test_data_decode.py::test_bomb_of_a_png_is_refused_from_its_header",
    "huge in bytes": "py/test_data_decode.py::test_byte_limit",
    "huge input of a stored graph": "py/test_stranger.py::"
    "test_a_checkpoint_that_claims_a_huge_input_is_refused_at_once",
    "zero bytes and foreign content": "py/test_data_scan.py::"
    "test_hostile_files_are_named_with_the_option_that_decides",
    "pipes and broken links": "py/test_data_scan.py::"
    "test_pipes_and_broken_links_are_unreadable_and_nothing_waits_for_them",
    "empty class": "py/test_stranger.py::test_an_empty_class_is_told_once_and_trained_without",
    "labels out of range": "py/test_data_sources.py::test_labels_as_names_indices_and_wrong",
    "NaN": "py/test_data_sources.py::test_arrays_that_are_wrong",
    "NaN in weights": "py/test_checkpoint.py::test_non_finite_weights_are_refused_both_ways",
    "wrong shapes": "py/test_data_sources.py::test_ambiguous_layout_is_asked_for",
    "unknown keys": "py/test_recipe.py::test_case_01_a_misspelt_key_is_an_error_with_the_nearest_name",
    "replaced while training": "py/test_data_loader.py::test_file_of_another_size_is_an_error",
}

PROMISES = {
    "same image, same logits": "py/test_bits.py::test_same_image_same_logits",
    "same recipe, same weights on another CPU": "py/test_bits.py::"
    "test_same_recipe_same_weights_under_every_kernel_set",
    "same recipe, same weights at any thread count": "py/test_bits.py::"
    "test_same_recipe_same_weights_at_any_thread_count",
    "same recipe, same weights after any interruption": "py/test_resume.py::"
    "test_kill_at_random_moments_and_resume",
    "the recorded number is the number": "py/test_bits.py::test_the_recorded_number_is_the_number",
    "a save is whole or absent": "py/test_checkpoint.py::test_kill_while_saving_leaves_a_whole_file",
    "a full disk leaves the old file": "py/test_checkpoint.py::"
    "test_any_refusing_system_call_leaves_the_old_file",
    "damage is refused: bits": "py/test_checkpoint.py::test_single_bit_flips_are_all_refused",
    "damage is refused: lengths": "py/test_checkpoint.py::test_every_truncation_is_refused",
    "a file executes nothing": "py/test_data_sources.py::test_stored_objects_that_could_run_are_refused",
    "memory is safe": "c/test_exec.c",
    "fuzzing": "py/test_fuzz.py::test_a_reader_reads_or_refuses",
    "it can be stopped within 300 ms": "py/test_interrupt.py::"
    "test_it_is_acknowledged_within_300_ms_in_a_long_step",
    "the second Ctrl-C leaves no trace": "py/test_interrupt.py::"
    "test_the_second_abandons_and_leaves_the_checkpoint",
    "no other thread stalls for more than 10 ms": "py/test_process.py::"
    "test_training_stalls_no_other_thread_for_more_than_10_ms",
    "fork, spawn, forkserver": "py/test_process.py::test_processes_agree_and_do_not_hang",
    "non-finite numbers stop the run": "py/test_train.py::test_non_finite_numbers_stop_the_run",
    "as close to float64 as PyTorch's own float32": "parity/test_networks.py::"
    "test_resnet18_losses_stay_as_close_to_float64_as_torchs",
}


@lru_cache
def names_in(file: str) -> frozenset[str]:
    """Names of a file's tests."""
    tree = ast.parse((HERE / file).read_text("utf-8"))
    found = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(n.name for n in found if n.name.startswith("test_"))


@pytest.mark.parametrize("row", FAILURE_CASES)
def test_every_failure_case_has_a_test_of_its_number(row: int) -> None:
    files = [f"py/{p.name}" for p in (HERE / "py").glob("test_*.py")]
    assert any(name.startswith(f"test_case_{row:02}_") for file in files for name in names_in(file))


@pytest.mark.parametrize("promise", [*HOSTILE_INPUT, *PROMISES])
def test_every_promise_has_its_test(promise: str) -> None:
    file, _, name = (HOSTILE_INPUT | PROMISES)[promise].partition("::")
    assert (HERE / file).exists()
    assert not name or name in names_in(file)
