from hypothesis import given
from hypothesis import strategies as st

from nas.tasks.epochs import in_epochs


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 100), st.integers(1, 60))
def test_any_stretch_is_a_part_of_one_row_in_which_every_epoch_holds_all(size, seed, first, count):
    row = in_epochs(size, seed=seed, first=0, count=first + count + size).tolist()
    assert in_epochs(size, seed=seed, first=first, count=count).tolist() == row[first : first + count]
    for start in range(0, len(row) - size + 1, size):
        assert sorted(row[start : start + size]) == list(range(size))


def test_epochs_seeds_and_sets_have_orders_of_their_own():
    orders = [
        in_epochs(50, seed=seed, first=50 * epoch, count=50, place=place, sets=2).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
        for place in (0, 1)
    ]
    assert all(a != b for at, a in enumerate(orders) for b in orders[:at])
