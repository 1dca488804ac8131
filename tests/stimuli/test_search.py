"""Search of a bank: against scoring everything, sorting, and dropping near-duplicates in turn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketcortex.core import InputError, StimulusSet
from pocketcortex.data import dead_leaves, read_v4
from pocketcortex.models import (
    CompactModel,
    CompactStack,
    import_compact_model,
    published_models,
)
from pocketcortex.stimuli import search_bank, thumbnails
from pocketcortex.stimuli._leaders import Leaders

SIZE = 16


def random_models(n: int, seed: int = 0) -> list[CompactModel]:
    generator = torch.Generator().manual_seed(seed)
    models = [CompactModel((3, 4, 3, 2, 2), (SIZE, SIZE)).eval() for _ in range(n)]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return models


def brute_force(scores, contents, places, k, min_distance):
    """Return the positions of the k best of one row by a plain loop."""
    finite = [i for i in range(len(scores)) if np.isfinite(scores[i])]
    order = sorted(finite, key=lambda i: (-scores[i], i))
    taken = []
    for i in order:
        if len(taken) == k:
            continue
        distances = [np.sqrt(np.mean((places[i] - places[j]) ** 2)) for j in taken]
        if all(d >= min_distance for d in distances) and contents[i] not in contents[taken]:
            taken.append(i)
    return taken


def block_means(images):
    """Return 8 x 8 means of images whose sides are multiples of 8."""
    n, c, h, w = images.shape
    return images.reshape(n, c, 8, h // 8, 8, w // 8).mean((3, 5)).reshape(n, -1)


class TestLeaders:
    @settings(max_examples=150, deadline=None)
    @given(
        st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 5), st.integers(0, 60),
        st.sampled_from([0.0, 1.0, 2.5, 6.0]), st.integers(1, 20),
    )  # fmt: skip
    def test_is_the_beginning_of_the_brute_force_answer(
        self, seed, n, k, surplus, min_distance, batch
    ):
        rng = np.random.default_rng(seed)
        contents = rng.integers(0, max(1, n // 2), n)  # many equal images
        places = np.random.default_rng(1).integers(0, 40, (n, 1))[contents].astype(np.float32)
        scores = rng.integers(-9, 9, (n, 3)).astype(np.float64)  # many ties
        scores[rng.random((n, 3)) < 0.1] = np.nan
        leaders = Leaders(3, k + surplus)
        for s in range(0, n, batch):
            here = slice(s, s + batch)
            leaders.add(scores[here], np.arange(n)[here], contents[here], places[here])
        for row, full in enumerate(leaders.full()):
            expected = brute_force(scores[:, row], contents, places, k, min_distance)
            got, values = leaders.chosen(row, k, min_distance)
            assert got.tolist() == expected[: len(got)]
            assert values.tolist() == scores[got, row].tolist()
            if len(got) < len(expected):
                assert full
                assert surplus < n

    def test_equal_images_use_up_no_room(self):
        leaders = Leaders(1, 2)
        scores = np.array([[5.0]] * 50 + [[4.0]] + [[3.0]])
        contents = np.array([7] * 50 + [8, 9])
        thumbs = contents[:, None].astype(np.float32)
        for s in range(0, 52, 5):
            here = slice(s, s + 5)
            leaders.add(scores[here], np.arange(52)[here], contents[here], thumbs[here])
        assert leaders.chosen(0, 2, 0.0)[0].tolist() == [0, 50]
        assert len(leaders._known) == 2  # nothing else is held

    def test_a_stronger_image_frees_what_only_a_dropped_one_was_near(self):
        # a ~ b ~ c in a row, a not near c; b comes first and is beaten by a in the end
        leaders = Leaders(1, 3)
        for position, (score, place) in enumerate([(9.0, 1.0), (8.0, 2.0), (10.0, 0.0)]):
            leaders.add(
                np.array([[score]]), np.array([position]), np.array([position]),
                np.array([[place]], dtype=np.float32),
            )  # fmt: skip
        assert leaders.chosen(0, 3, 1.5)[0].tolist() == [2, 1]


@pytest.fixture(scope="module")
def bank():
    """Dead leaves; copies, equal and slightly changed, of some of them in between."""
    images = dead_leaves(60, size=SIZE, seed=0)
    brighter = np.clip(images[10:25].astype(int) + 5, 0, 255).astype(np.uint8)
    images = np.concatenate([images[:40], images[:10], brighter, images[40:]])
    return images[np.random.default_rng(1).permutation(len(images))]


@pytest.mark.parametrize("min_distance", [0.0, 15.0, 60.0])
@pytest.mark.parametrize("batch_size", [7, 200])
def test_equals_brute_force_on_models(bank, min_distance, batch_size):
    models = random_models(4)
    stack = CompactStack(models).double()
    found = search_bank(
        stack, StimulusSet.from_array(bank), 12, min_distance=min_distance, batch_size=batch_size
    )
    with torch.inference_mode():
        scores = np.stack([m.double()(torch.from_numpy(bank)).numpy() for m in models], axis=1)
    contents = np.unique(bank.reshape(len(bank), -1), axis=0, return_inverse=True)[1]
    places = block_means(bank.astype(np.float64))
    for m in range(4):
        for got, sign in ((found.strongest, 1), (found.weakest, -1)):
            rounded = np.round(sign * scores[:, m], 9)  # equal images are equal
            expected = brute_force(rounded, contents, places, 12, min_distance)
            assert got.positions[: len(expected), m].tolist() == expected
            assert got.n_found[m] == len(expected)
            np.testing.assert_allclose(
                got.responses[: len(expected), m], scores[expected, m], rtol=1e-6
            )
            assert np.isnan(got.responses[len(expected) :, m]).all()
    assert not found.strongest.cut_short.any()
    np.testing.assert_allclose(found.mean, scores.mean(0))
    np.testing.assert_allclose(found.sd, scores.std(0))
    assert (found.n_images, found.n_finite.tolist()) == (len(bank), [len(bank)] * 4)


def test_without_suppression_it_is_a_sort(bank):
    distinct = np.unique(bank, axis=0)
    stack = CompactStack(random_models(3))
    found = search_bank(stack, StimulusSet.from_array(distinct), 5, min_distance=0.0, surplus=0)
    responses = stack.predict(torch.from_numpy(distinct)).numpy()
    np.testing.assert_array_equal(
        found.strongest.positions, np.argsort(-responses, axis=0, kind="stable")[:5]
    )
    np.testing.assert_array_equal(
        found.weakest.positions, np.argsort(responses, axis=0, kind="stable")[:5]
    )


def test_says_where_fewer_are_left(bank):
    few = StimulusSet.from_array(np.repeat(bank[:2], 30, axis=0))
    found = search_bank(random_models(2), few, 3, min_distance=0.0)
    assert found.strongest.n_found.tolist() == [2, 2]
    assert not found.strongest.cut_short.any()  # the bank has no third image
    near = search_bank(random_models(2), StimulusSet.from_array(bank), 3, min_distance=250.0)
    assert near.strongest.n_found.tolist() == [1, 1]
    short = search_bank(
        random_models(2), StimulusSet.from_array(bank), 3, min_distance=250.0, surplus=0
    )
    assert short.weakest.cut_short.all()
    assert short.weakest.positions[1:].tolist() == [[-1, -1]] * 2


def test_constant_and_undefined_models(bank):
    constant, undefined, good = random_models(3)
    with torch.no_grad():
        constant.readout.zero_()
        undefined.readout_bias.fill_(torch.nan)
    found = search_bank([constant, undefined, good], StimulusSet.from_array(bank), 3)
    alone = search_bank([good], StimulusSet.from_array(bank), 3)
    assert found.sd[0] == 0
    assert found.strongest.positions[:, 0].tolist() == found.weakest.positions[:, 0].tolist()
    assert found.strongest.positions[0, 0] == 0
    assert found.n_finite.tolist() == [len(bank), 0, len(bank)]
    assert np.isnan([found.mean[1], found.sd[1]]).all()
    assert (found.strongest.positions[:, 1] == -1).all()
    np.testing.assert_array_equal(found.strongest.positions[:, 2], alone.strongest.positions[:, 0])


def test_times_and_progress_add_up(bank):
    steps = []
    found = search_bank(
        random_models(1), StimulusSet.from_array(bank), 2, batch_size=30, advance=steps.append
    )
    assert steps == [30, 30, 25]
    assert 0 < found.seconds_predicting < found.seconds
    assert 0 <= found.seconds_decoding <= found.seconds - found.seconds_predicting
    assert repr(found) == "BankSearch(2 strongest and weakest of 85 images for 1 models)"


def test_thumbnails_are_block_means(bank):
    np.testing.assert_allclose(thumbnails(bank), block_means(bank.astype(float)), rtol=1e-6)
    assert thumbnails(bank[:2, :, :5, :7]).shape == (2, 192)


def test_refuses_bad_input(bank):
    models, stimuli = random_models(1), StimulusSet.from_array(bank)
    for wrong, message in (
        ({"k": 0}, "k must be at least 1"),
        ({"surplus": -1}, "surplus must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"min_distance": -1.0}, "min_distance must be"),
        ({"min_distance": np.nan}, "min_distance must be"),
        ({"models": []}, "at least one compact model"),
        ({"stimuli": stimuli.take([])}, "holds no image"),
        ({"stimuli": StimulusSet.from_array(bank[:, :, 1:])}, "read it with that size"),
        ({"n_threads": 0}, "n_threads"),
    ):
        with pytest.raises(InputError, match=message):
            search_bank(**({"models": models, "stimuli": stimuli, "k": 1} | wrong))


@pytest.mark.data
def test_published_models_on_images_shown_twice(real_data: Path):
    paths = list(published_models(real_data / "v4", "190923").values())[:2]
    models = [import_compact_model(path) for path in paths]
    shown = read_v4(real_data / "v4")["190925"].require_stimuli()
    digests = np.array(shown.digests)
    names, counts = np.unique(digests, return_counts=True)
    twice = np.flatnonzero(np.isin(digests, names[counts == 2]))[:60]
    both = np.flatnonzero(np.isin(digests, digests[twice]))
    found = search_bank(models, shown.take(both), 10, min_distance=0.0, surplus=0)
    with torch.inference_mode():
        responses = [m(torch.from_numpy(shown.read(both))).numpy() for m in models]
    for m, scores in enumerate(responses):
        distinct = dict(zip(digests[both], scores, strict=True))
        expected = np.sort(list(distinct.values()))
        assert len(distinct) < len(both)
        np.testing.assert_allclose(found.strongest.responses[:, m], expected[::-1][:10], atol=1e-4)
        np.testing.assert_allclose(found.weakest.responses[:, m], expected[:10], atol=1e-4)
        assert len(set(digests[both][found.strongest.positions[:, m]])) == 10
