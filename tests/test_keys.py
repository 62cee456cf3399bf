"""Keys order as the values do, and give the values back."""

import jax.numpy as jnp
import numpy as np
import pytest

from jax_ranges import keys
from values import FLOATS, INTS, NARROW, WIDE, cast, is_complex, is_float, random_array, specials

REAL = [d for d in NARROW if not is_complex(d)]


def arrays(dtype):
    rng = np.random.default_rng(0)
    x = random_array(dtype, (400,), rng)
    x = np.concatenate([x, specials(dtype)]) if is_float(dtype) else x
    return x[~np.isnan(cast(x, np.float64))] if is_float(dtype) else x


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_keys_order_as_the_values_do(dtype):
    x = arrays(dtype)
    key, value = keys.key_of(x, np), cast(x, np.float64)
    order = np.argsort(key, kind="stable")
    assert key.dtype == keys.key_dtype(dtype)
    ordered = value[order]
    assert np.all(ordered[1:] >= ordered[:-1])
    differs = ordered[1:] > ordered[:-1]
    assert np.all(np.diff(key[order].astype(np.int64))[differs] > 0)


@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_values_come_back_from_their_keys_in_numpy_and_in_jax(dtype):
    x = arrays(dtype)
    carrier = keys.carrier_dtype(dtype)
    for xp, given in ((np, x), (jnp, jnp.asarray(x))):
        back = np.asarray(keys.value_of(keys.key_of(given, xp), dtype, xp))
        assert back.dtype == carrier
        np.testing.assert_array_equal(back, x.astype(carrier))
        if is_float(dtype):
            np.testing.assert_array_equal(np.signbit(back), np.signbit(x.astype(carrier)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [d for d in WIDE if not is_complex(d)], ids=str)
def test_64_bit_values_keep_every_bit(dtype):
    x = arrays(dtype)
    x = np.concatenate([x, np.array([2**63 + 1], np.uint64).astype(dtype)])
    for xp, given in ((np, x), (jnp, jnp.asarray(x))):
        key = keys.key_of(given, xp)
        assert key.dtype == np.int64
        np.testing.assert_array_equal(np.asarray(keys.value_of(key, dtype, xp)), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_infinity_is_above_every_number_and_below_every_nan(dtype):
    x = np.concatenate([arrays(dtype), np.array([np.nan], np.float32).astype(dtype)])
    _, word = keys.float_word(dtype)
    magnitude = keys.float_bits(x, np) & word.type(np.iinfo(word).max)
    np.testing.assert_array_equal(magnitude > keys.infinity(dtype), np.isnan(cast(x, np.float64)))


@pytest.mark.parametrize("dtype", [*INTS, np.dtype(bool), *FLOATS], ids=str)
def test_limits_enclose_every_value(dtype):
    least, most = keys.limits(dtype)
    x = cast(arrays(dtype), np.float64)
    assert np.all((float(least) <= x) & (x <= float(most)))
