"""Hand-over: golden texts by writers of their own, and each form read by the tool it is for.

Where a tool does not install (Caffe2, TensorRT) its published format stands in: the readers here
are written from the sources that the module's docstring names.
"""

from __future__ import annotations

import functools
import json
import math
import struct
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import jax_ranges as jr
from jax_ranges import handover
from jax_ranges.files import LossWarning
from jax_ranges.handover.modules import Model
from jax_ranges.ranges import from_states
from jax_ranges.site import Site
from jax_ranges.stats import Extrema, MinMax

INF, NAN = math.inf, math.nan
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ENDS = st.tuples(FLOATS, FLOATS).map(
    lambda ends: sorted(ends, key=lambda x: (x, math.copysign(1, x)))  # -0.0 before 0.0
)
TENSOR_WRITERS = {
    "scales": handover.scales,
    "tensorrt_cache": handover.tensorrt_cache,
    "onnxruntime_table": handover.onnxruntime_table,
    "onnxruntime_ranges": handover.onnxruntime_ranges,
    "caffe2_qparams": handover.caffe2_qparams,
}
every_writer = pytest.mark.parametrize("write", TENSOR_WRITERS.values(), ids=TENSOR_WRITERS)


def ranged(**ends):
    """Ranges of sites by name, each of a min and a max, of float32 or of arrays as they are."""
    sites, states = [], []
    for name, (lo, hi) in ends.items():
        lo, hi = (
            np.asarray(end, None if hasattr(end, "dtype") else np.float32) for end in (lo, hi)
        )
        sites.append(Site(name, "add", 0, (2,), lo.dtype))
        state = MinMax().state(lo, hi, np.zeros(lo.shape, bool), lo.dtype, np)
        states.append({MinMax(): state})
        assert isinstance(state, Extrema)
    return from_states(sites, states)


def unmeasured(sites):
    """Ranges of sites where nothing was seen."""
    return from_states(sites, [{MinMax(): MinMax().identity(site.dtype)} for site in sites])


def measured(f, *args, **options):
    return jr.ranges(f, **options)(*map(jnp.asarray, args))[1]


def model(x):
    with jax.named_scope("block"):
        y = jnp.exp(x) - 2.0
    return jnp.argmax(y), jnp.log(y)


# -- which sites, under which names -----------------------------------------------------------


@every_writer
def test_a_mapping_names_exactly_the_sites_to_hand_over(write):
    ranges = ranged(first=(-1, 2), second=(-3, 4))
    found = str(write(ranges, {"second": "Tensor"}))
    assert "Tensor" in found
    assert "first" not in found and "second" not in found


def test_a_callable_is_asked_about_floats_and_leaves_out():
    asked = []

    def names(site):
        asked.append(site)
        return None if "sub" in site else site.upper()

    ranges = measured(model, [3.0, 4.0])
    assert [*handover.scales(ranges, names)] == ["BLOCK/EXP", "LOG"]
    assert asked == ["block/exp", "block/sub", "log"]
    assert [*handover.scales(ranges)] == asked  # no integers either


def test_a_mapping_may_name_a_site_of_integers():
    assert handover.scales(measured(model, [3.0, 4.0]), {"argmax": "i"})["i"]["scale"] > 0


@every_writer
def test_a_misspelt_site_suggests_the_nearest(write):
    with pytest.raises(jr.UnknownSiteError, match=r"names= has 'exp', which is no site.*block/exp"):
        write(measured(model, [3.0]), {"exp": "Y"})


def test_names_are_different_strings():
    ranges = ranged(a=(0, 1), b=(0, 1))
    with pytest.raises(ValueError, match="gives 2 sites the name 'T': 'a', 'b'"):
        handover.scales(ranges, lambda name: "T")
    with pytest.raises(TypeError, match="'a' the name 3, which is no string"):
        handover.scales(ranges, {"a": 3})  # type: ignore[dict-item]


# -- what no scale can be made of -------------------------------------------------------------


def unfit_ranges():
    def f(x):
        y = jax.lax.cond(x[0] > 100, jnp.sin, lambda x: x, x)
        return y, jnp.sqrt(x), jnp.exp(1000 * x), jnp.tanh(x)

    return measured(f, [-1.0, 2.0], stats=(jr.MinMax(), jr.Histogram()))


UNFIT = {
    "cond/branch_1/sin": "nothing was observed",
    "sqrt": "a NaN was seen",
    "exp": "an infinity was seen",
}


@every_writer
@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_unfit_sites_are_an_error_that_lists_them(write, method):
    ranges = unfit_ranges()
    with pytest.raises(handover.UnfitSiteError) as error:
        write(ranges, method=method)
    floats = [site for site in ranges.sites if site.dtype == np.float32]
    assert f"3 of {len(floats)} cannot be handed over" in str(error.value)
    for site, why in UNFIT.items():
        assert f"'{site}' ({why})" in str(error.value)
    assert "tanh" not in str(error.value)


@every_writer
def test_unfit_sites_are_left_out_with_a_warning_at_the_users_line(write):
    ranges = unfit_ranges()
    floats = [site.name for site in ranges.sites if site.dtype == np.float32]
    fit = {name: name for name in floats if name not in UNFIT}
    with pytest.warns(
        handover.UnfitSiteWarning, match="3 of .*'sqrt' \\(a NaN was seen\\)"
    ) as seen:
        kept = write(ranges, unfit="skip")
    assert seen[0].filename == __file__
    assert kept == write(ranges, fit)


def test_histograms_of_unfit_sites_are_an_error_too():
    with pytest.raises(handover.UnfitSiteError, match="3 of"):
        handover.caffe2_histograms(unfit_ranges())
    with pytest.warns(handover.UnfitSiteWarning):
        text = handover.caffe2_histograms(unfit_ranges(), unfit="skip")
    assert not any(f" {site} " in text for site in UNFIT)


def test_unfit_says_what_it_can_be():
    with pytest.raises(ValueError, match="unfit is 'error' or 'skip', got 'ignore'"):
        handover.scales(ranged(a=(0, 1)), unfit="ignore")  # type: ignore[arg-type]


@every_writer
def test_values_that_no_float32_holds_are_unfit_for_all_but_json(write):
    ranges = ranged(wide=(np.float64(-1e300), np.float64(1)))
    if write is handover.scales:
        assert write(ranges)["wide"]["scale"] == pytest.approx(1e300 / 255)
        return
    with pytest.raises(handover.UnfitSiteError, match="'wide' \\(values beyond float32 were seen"):
        write(ranges)


@every_writer
def test_ranges_inside_jit_are_an_error(write):
    def f(x):
        return write(jr.ranges(jnp.sin)(x)[1])

    with pytest.raises(ValueError, match="these ranges are traced"):
        jax.jit(f)(jnp.ones(3))


@every_writer
def test_leading_axes_are_merged(write):
    def f(x):
        return jax.lax.scan(lambda x, w: (x * w, None), x, jnp.array([1.0, -2.0, 3.0]))

    x = jnp.array([0.5, -1.0])
    stacked = jax.vmap(jr.ranges(f, loops="stack"))(x)[1]
    assert stacked["scan/mul"].min.shape == (2, 3)
    assert write(stacked, {"scan/mul": "T"}) == write(stacked.reduce(), {"scan/mul": "T"})


def test_a_loop_of_no_trips_is_unfit():
    def f(x):
        return jax.lax.scan(lambda x, w: (x * w, None), x, jnp.ones((0,)))

    ranges = jr.ranges(f, loops="stack")(jnp.ones(2))[1]
    for options in ({}, {"stat": MinMax()}):
        with pytest.raises(handover.UnfitSiteError, match="'scan/mul' \\(nothing was observed"):
            handover.scales(ranges, **options)


@every_writer
def test_files_are_what_is_returned(write, tmp_path):
    file = tmp_path / "out"
    returned = write(ranged(a=(-1, 2.5)), file=file)
    content = file.read_bytes()
    if isinstance(returned, dict):
        assert json.loads(content) == returned
    else:
        assert content == (returned.encode() if isinstance(returned, str) else returned)
    assert [*tmp_path.iterdir()] == [file]


# -- JSON -------------------------------------------------------------------------------------


@given(ENDS, st.sampled_from(["int8", "uint4", "float8_e4m3fn"]), st.booleans())
def test_scales_are_those_of_qparams(ends, name, symmetric):
    ranges = ranged(a=ends)
    q = jr.qparams(ranges["a"], name, symmetric)
    (plain,) = handover.scales(ranges, format=name, symmetric=symmetric).values()
    assert np.float32(plain["scale"]).tobytes() == np.float32(q.scale).tobytes()
    assert (plain["zero_point"], plain["qmin"], plain["qmax"]) == (q.zero_point, q.qmin, q.qmax)
    assert json.loads(json.dumps(plain)) == plain


def test_scales_of_channels_and_of_layers():
    x = jnp.array([[1.0, -254.0], [0.5, 127.0]])
    per_column = jr.PerChannel(axis=-1)
    plain = handover.scales(
        measured(jnp.negative, x, stats=per_column), stat=per_column, symmetric=True, narrow=True
    )["neg"]
    assert (plain["scale"], plain["axis"]) == ([pytest.approx(1 / 127), 2.0], -1)
    stacked = jr.ranges(lambda x: jax.lax.map(jnp.negative, x), loops="stack")(x)[1]
    plain = handover.scales(stacked, stat=MinMax(), symmetric=True, narrow=True)["scan/neg"]
    assert (plain["scale"], plain["axis"]) == ([2.0, pytest.approx(1)], None)


def test_methods_read_histograms():
    x = jax.random.t(jax.random.key(0), 2.0, (20_000,))
    ranges = measured(jnp.negative, x, stats=(jr.MinMax(), jr.Histogram()))
    q = jr.qparams(ranges.of("neg", jr.Histogram), "int8", method="percentile", percentile=99)
    plain = handover.scales(ranges, method="percentile", percentile=99)["neg"]
    assert (plain["scale"], plain["zero_point"]) == (q.scale, q.zero_point)
    with pytest.raises(ValueError, match=r"Histogram\(.*\) was not among the statistics taken"):
        handover.scales(measured(jnp.negative, x), method="mse")


# -- Caffe2 -----------------------------------------------------------------------------------


def fbgemm(lo, hi, precision):
    """ChooseQuantizationParams, then TensorQuantizationParams::Min and Max, in float32."""
    qmax = (1 << precision) - 1
    scale = (max(hi, 0.0) - min(lo, 0.0)) / qmax or 0.1
    from_lo, from_hi = -min(lo, 0.0) / scale, qmax - max(hi, 0.0) / scale
    closer = abs(min(lo, 0.0) / scale) < qmax + abs(max(hi, 0.0) / scale)
    zero_point = round(min(max(from_lo if closer else from_hi, 0), qmax))
    scale = np.float32(scale)
    return scale * np.float32(-zero_point), scale * np.float32(qmax - zero_point), scale, zero_point


@pytest.mark.parametrize("precision", [4, 8, 16])
def test_the_lines_are_those_of_caffe2s_observer(precision):
    """`fout << op_index << " " << ... << endl`: a float is printed as by %g, with six digits."""
    ends = {"conv": (-1.5, 3.25), "relu": (0, 6.0), "neg": (-7, 0), "zero": (0, 0), "b": (2, 3)}
    expected = ""
    for index, (name, (lo, hi)) in enumerate(ends.items()):
        low, high, scale, zero = fbgemm(lo, hi, precision)
        expected += f"{index} add 0 T_{name} " + "%g %g %g " % (low, high, scale)  # noqa: UP031
        expected += f"{zero} {precision}\n"
    found = handover.caffe2_qparams(
        ranged(**ends), lambda name: f"T_{name}", precision=precision, digits=6
    )
    assert found == expected


def test_symmetric_lines_have_the_middle_code():
    line = handover.caffe2_qparams(ranged(a=(-1.0, 127.0)), symmetric=True)
    assert line == "0 add 0 a -128 127 1 128 8\n"


@given(ENDS)
def test_numbers_of_lines_come_back_exactly(ends):
    lo, hi = ends
    assume(hi - lo < 3e38)
    q = jr.qparams(ranged(a=ends)["a"], "uint8")
    *_, low, high, scale, zero_point, precision = handover.caffe2_qparams(ranged(a=ends)).split()
    assert np.float32(scale).tobytes() == np.float32(q.scale).tobytes()
    assert np.float32(low) == q.scale * np.float32(0 - q.zero_point)
    assert np.float32(high) == q.scale * np.float32(255 - q.zero_point)
    assert (int(zero_point), precision) == (q.zero_point, "8")


def test_operations_are_numbered_as_in_files_of_ranges(tmp_path):
    def f(x):
        return jax.lax.sort((x, -x), num_keys=2), jnp.argmax(x), jnp.exp(x)

    ranges = measured(f, [3.0, 1.0])
    with pytest.warns(LossWarning, match="dtypes other than float32"):
        ranges.save(tmp_path / "r.minmax")
    lines = [line.split()[:4] for line in (tmp_path / "r.minmax").read_text().splitlines()]
    found = [line.split()[:4] for line in handover.caffe2_qparams(ranges).splitlines()]
    assert found == [line for line in lines if line[1] != "argmax"]
    assert ["1", "sort", "1", "sort[1]"] in found and found[-1][0] == "3"


def test_lines_are_split_at_white_space():
    with pytest.raises(ValueError, match="splits lines at white space, which is in the name 'a b'"):
        handover.caffe2_qparams(ranged(a=(0, 1)), {"a": "a b"})


def read_histograms(text):
    """RegisterQuantizationParamsWithHistogramNetObserver: by `>>`, the number of bins says how many
    counts follow; the first line's number of words tells the format.
    """
    first = text.splitlines()[0].split()
    assert len(first) == int(first[6]) + 7
    words, found = iter(text.split()), {}
    for index in words:
        kind, output, name = next(words), next(words), next(words)
        lo, hi, nbins = np.float32(next(words)), np.float32(next(words)), int(next(words))
        found[name] = (
            int(index),
            kind,
            int(output),
            lo,
            hi,
            [int(next(words)) for _ in range(nbins)],
        )
    return found


def test_histograms_hold_all_values_in_bins_of_equal_width():
    x = np.random.default_rng(0).standard_t(3, 50_000).astype(np.float32)
    stats = (jr.MinMax(), jr.Histogram(bins=512))
    ranges = measured(lambda x: (jnp.exp(-jnp.abs(x)), x + 1), x, stats=stats)
    found = read_histograms(handover.caffe2_histograms(ranges))
    assert [*found] == ["abs", "neg", "exp", "add"]
    values = {"abs": np.abs(x), "exp": np.asarray(jnp.exp(-jnp.abs(x))), "add": x + 1}
    for index, (name, value) in enumerate(values.items()):
        number, kind, output, lo, hi, counts = found[name]
        assert (number, kind, output) == ([0, 2, 3][index], name, 0)
        width = (hi - lo) / len(counts)
        assert lo <= value.min() < lo + width and hi - width < value.max() <= hi
        edges = np.linspace(lo, hi, len(counts) + 1)
        at = np.clip(np.ceil((value - lo) / width) - 1, 0, None).astype(int)
        on_an_edge = np.isin(value, edges)  # ours belong to the bin further from zero
        expected = np.bincount(at[~on_an_edge], minlength=len(counts))
        assert np.all(np.array(counts) - expected >= 0)
        assert sum(counts) - expected.sum() == on_an_edge.sum()


def test_histogram_lines_exactly():
    x = [-1.0, -0.5, 0.25, 0.25, 3.0]
    ranges = measured(jnp.negative, x, stats=jr.Histogram(bins=16))
    assert handover.caffe2_histograms(ranges, {"neg": "X"}) == (
        "0 neg 0 X -3 1 8 1 0 0 0 0 2 1 1\n"
    )
    assert handover.caffe2_histograms(ranges, {"neg": "X"}, digits=6) == (
        "0 neg 0 X -3 1 8 1 0 0 0 0 2 1 1\n"
    )


# -- TensorRT ---------------------------------------------------------------------------------


def read_cache(text):
    """As ONNX Runtime does (ReadDynamicRange): a version, then `name: hex`, to scales by name."""
    first, *lines = text.split("\n")
    assert lines.pop() == ""
    assert first.startswith("TRT-")
    pairs = (line.split(": ") for line in lines)
    return first, {name: struct.unpack(">f", bytes.fromhex(word))[0] for name, word in pairs}


def test_a_cache_is_nvidias():
    """The scales of the example in sampleINT8's README: words of that, and back."""
    words = {"data": "3c008912", "conv1": "3c88edfc", "ip2": "3e691968", "prob": "3c010a14"}
    amax = {
        name: np.float32(127) * np.frombuffer(bytes.fromhex(word)[::-1], np.float32)[0]
        for name, word in words.items()
    }
    ranges = ranged(**{name: (-most / 2, most) for name, most in amax.items()})
    text = handover.tensorrt_cache(ranges, version=7000)
    lines = "".join(f"{name}: {word}\n" for name, word in words.items())
    assert text == f"TRT-7000-EntropyCalibration2\n{lines}"


@given(ENDS)
def test_scales_in_hex_come_back_exactly(ends):
    lo, hi = map(np.float32, ends)
    amax = max(-lo, hi)
    _, found = read_cache(handover.tensorrt_cache(ranged(a=ends)))
    expected = max(amax / np.float32(127), np.finfo(np.float32).tiny) if amax else np.float32(0.1)
    assert np.float32(found["a"]).tobytes() == np.float32(expected).tobytes()


def test_every_exponent_in_hex():
    bits = np.random.default_rng(0).integers(1, 0x7F80_0000, 5_000).astype(np.int32)
    values = bits.view(np.float32)
    ranges = ranged(**{f"t{i}": (-v / 3, v) for i, v in enumerate(values)})
    _, found = read_cache(handover.tensorrt_cache(ranges))
    expected = np.maximum(values / np.float32(127), np.finfo(np.float32).tiny)
    assert np.array_equal(np.array([*found.values()], np.float32), expected)


def test_the_first_line_tells_version_and_calibrator():
    text = handover.tensorrt_cache(ranged(a=(0, 1)), version=100300, calibrator="MinMaxCalibration")
    assert text.startswith("TRT-100300-MinMaxCalibration\na: ")


def test_a_name_is_on_one_line():
    for name in ("", "a\nb", "a\r"):
        with pytest.raises(ValueError, match="on one line, and not empty"):
            handover.tensorrt_cache(ranged(a=(0, 1)), {"a": name})


# -- ONNX Runtime -----------------------------------------------------------------------------


def read_flatbuffers(data):
    """The pairs, by the layout that flatbuffers.dev/internals tells."""

    def u32(at):
        return struct.unpack_from("<I", data, at)[0]

    def field(table, number):
        vtable = table - struct.unpack_from("<i", data, table)[0]
        offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        return table + offset + u32(table + offset)

    def string(at):
        assert data[at + 4 + u32(at)] == 0
        return data[at + 4 : at + 4 + u32(at)].decode()

    vector = field(u32(0), 0)
    entries = [vector + 4 + 4 * i for i in range(u32(vector))]
    assert all(at % 4 == 0 for at in entries)
    tables = [at + u32(at) for at in entries]
    return [(string(field(t, 0)), string(field(t, 1))) for t in tables]


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), ENDS, min_size=1, max_size=8)
)
def test_a_table_has_the_largest_magnitude_of_each_tensor(tensors):
    named = {f"site_{i}": name for i, name in enumerate(tensors)}
    ranges = ranged(**dict(zip(named, tensors.values(), strict=True)))
    found = read_flatbuffers(handover.onnxruntime_table(ranges, named))
    assert [name for name, _ in found] == sorted(tensors, key=lambda name: name.encode())
    for name, value in found:
        amax = np.abs(np.float32(tensors[name])).max()
        assert np.float32(value) == (amax or np.float32(12.7))


def test_a_table_as_text():
    ranges = ranged(b=(-5, 1), a=(0, 0.1))
    text = handover.onnxruntime_table(ranges, form="text")
    assert text == b"a 0.1\nb 5.0\n"
    with pytest.raises(ValueError, match="form is 'flatbuffers' or 'text', got 'json'"):
        handover.onnxruntime_table(ranges, form="json")  # type: ignore[arg-type]


@given(ENDS, st.booleans())
def test_ranges_are_what_the_codes_cover(ends, symmetric):
    ranges = ranged(a=ends)
    plain = handover.onnxruntime_ranges(ranges, symmetric=symmetric, narrow=symmetric)["data"]["a"]
    lo, hi = (np.float64(plain[end]["data"]) for end in ("lowest", "highest"))
    q = jr.qparams(ranges["a"], "int8", symmetric, narrow=symmetric)
    assert lo <= 0 <= hi
    if symmetric and any(ends):
        assert (-lo, hi) == (np.abs(np.float32(ends)).max(),) * 2
    if q.scale > np.finfo(np.float32).tiny and hi - lo < 3e38:
        assert (hi - lo) / (int(q.qmax) - int(q.qmin)) == pytest.approx(q.scale, rel=1e-6)


# -- modules ----------------------------------------------------------------------------------


def forward(ranges, names=None, root=None, weights=None, unfit="error"):
    return Model.of(ranges, names, root, weights, unfit)


def paths(ranges, **options):
    return [(p.module, p.op, p.index) for p in forward(ranges, **options).forward]


def dense(params, x, name):
    with jax.named_scope(name):
        return x @ params["kernel"]


KERNEL = {"kernel": jnp.eye(2)}


@pytest.mark.parametrize(
    "scope",
    [
        *("Net", "jit(f)/Net", "Net/jit(g)", "Net/Net.encode", "jvp(Net)", "vmap(Net)", "Net/scan"),
        *("while/body/Net", "Net/cond/branch_1", "Net/checkpoint", "shard_map/jvp(Net)/jit(h)"),
    ],
)
def test_scopes_that_are_no_modules_do_not_count(scope):
    ranges = from_states(
        [Site(f"{scope}/Dense_0/dot_general", "dot_general", 0, (2,), np.dtype(np.float32),
              operands=("input/x", "input/p/params/Dense_0/kernel"),
              by_operand=(("input/x",), ("input/p/params/Dense_0/kernel",)))],
        [{MinMax(): MinMax().state(*np.float32([0, 1]), np.bool_(0), np.dtype(np.float32), np)}],
    )  # fmt: skip
    assert paths(ranges) == [("Dense_0", "dot_general", 0)]


def test_modules_may_be_called_like_branches():
    def f(params, x):
        with jax.named_scope("Net/body/cond"):
            return dense(params["body"]["cond"]["while"], x, "while")

    ranges = jr.ranges(f, inputs=True)({"body": {"cond": {"while": KERNEL}}}, jnp.ones(2))[1]
    assert [*handover.aqt_bounds(ranges)] == ["body/cond/while"]


def two_models(encoder, decoder, x):
    with jax.named_scope("Encoder"):
        x = dense(encoder["params"]["a"], x, "a")
    with jax.named_scope("Decoder"):
        return dense(decoder["params"]["a"], x, "a")


def test_of_several_models_one_has_to_be_said():
    variables = {"params": {"a": KERNEL}}
    ranges = jr.ranges(two_models, inputs=True)(variables, variables, jnp.ones(2))[1]
    with pytest.raises(ValueError, match="several models, Decoder, Encoder: say root="):
        handover.aqt_bounds(ranges)
    with pytest.raises(handover.UnfitSiteError, match="'Decoder/a/dot_general' \\(it is in no mod"):
        handover.aqt_bounds(ranges, root="Encoder")
    with pytest.warns(handover.UnfitSiteWarning) as seen:
        assert [*handover.aqt_bounds(ranges, root="Encoder", unfit="skip")] == ["a"]
    assert seen[0].filename == __file__
    assert [*handover.aqt_bounds(ranges, root="")] == ["Encoder/a", "Decoder/a"]


def test_weights_may_be_captured():
    params = {"kernel": jnp.full((2, 2), 9.0)}

    def f(x):
        with jax.named_scope("Net"):
            return dense(params, x, "Dense_0")

    (rule,) = handover.qwix_rules(measured(f, [1.0, 3.0], inputs=True))
    assert (rule["module_path"], rule["act_calibration_method"]) == ("Dense_0", "fixed,-3.0,3.0")


def test_a_batch_in_a_container_is_not_taken_for_a_weight():
    def f(params, batch):
        with jax.named_scope("Net"):
            return dense(params["d"], batch["image"], "d")

    ranges = jr.ranges(f, inputs=True)({"d": KERNEL}, {"image": jnp.array([2.0, -4.0])})[1]
    for weights in (None, "input/params/*", "input/*/*"):
        (rule,) = handover.qwix_rules(ranges, weight_inputs=weights)
        assert rule["act_calibration_method"] == "fixed,-4.0,4.0"


def test_operands_have_to_be_measured():
    def f(params, x):
        return dense(params, x, "Net")

    with pytest.raises(ValueError, match="'input/x', which was not measured: .*inputs=True"):
        handover.qwix_rules(jr.ranges(f)(KERNEL, jnp.ones(2))[1])
    with pytest.raises(ValueError, match="no matrix product or convolution"):
        handover.qwix_rules(measured(jnp.sin, [1.0]))


def test_files_without_operands_say_so(tmp_path):
    ranges = jr.ranges(lambda p, x: dense(p, x, "Net"), inputs=True)(KERNEL, jnp.ones(2))[1]
    ranges.save(tmp_path / "r.csv")
    ranges.save(tmp_path / "r.json")
    with pytest.raises(ValueError, match="files of text and CSV do not tell them"):
        handover.aqt_bounds(jr.load(tmp_path / "r.csv"))
    assert handover.aqt_bounds(jr.load(tmp_path / "r.json")) == handover.aqt_bounds(ranges)


def test_names_are_the_paths_of_modules():
    ranges = jr.ranges(lambda p, x: x @ p["a"] @ p["b"], inputs=True)(
        {"a": jnp.eye(2), "b": 3 * jnp.eye(2)}, jnp.array([1.0, 2.0])
    )[1]
    first, second = "dot_general", "dot_general.1"
    assert handover.aqt_bounds(ranges, {second: "x/y"}) == {"x/y": {"lhs": 2.0, "rhs": 3.0}}
    assert [*handover.aqt_bounds(ranges, {first: "m", second: "m"})] == ["m", "m.1"]
    assert [*handover.aqt_bounds(ranges, lambda n: n if n == first else None)] == [first]
    with pytest.raises(jr.UnknownSiteError, match="'dot_generel'.*nearest are 'dot_general'"):
        handover.aqt_bounds(ranges, {"dot_generel": "m"})
    with pytest.raises(ValueError, match="'input/x', which is no matrix product"):
        handover.aqt_bounds(ranges, {"input/x": "m"})


def test_what_a_loop_carries_counts_for_the_operand_that_it_is():
    def f(params, x):
        def body(x, _):
            with jax.named_scope("Net"):
                return 2 * dense(params, x, "d"), None

        return jax.lax.scan(body, x, length=3)[0]

    ranges = jr.ranges(f, inputs=True, loops="stack")(KERNEL, jnp.array([1.0, -1.5]))[1]
    assert handover.aqt_bounds(ranges) == {"d": {"lhs": 12.0, "rhs": 1.0}}  # after three trips


def test_unfit_operands_are_named():
    def f(params, x):
        with jax.named_scope("Net"):
            return dense(params["a"], jnp.log(x), "a"), dense(params["b"], x, "b")

    ranges = jr.ranges(f, inputs=True)({"a": KERNEL, "b": KERNEL}, jnp.array([0.0, 1.0]))[1]
    with pytest.raises(handover.UnfitSiteError, match="1 of 2 .*'a' \\(an infinity was seen\\)"):
        handover.qwix_rules(ranges)
    with pytest.raises(handover.UnfitSiteError, match="1 of 4 .*'a lhs' \\(an infinity"):
        handover.aqt_bounds(ranges)
    with pytest.warns(handover.UnfitSiteWarning) as seen:
        (rule,) = handover.qwix_rules(ranges, unfit="skip")
    assert rule["module_path"] == "b" and seen[0].filename == __file__


@given(ENDS)
def test_fixed_ranges_come_back_exactly(ends):
    ranges = jr.ranges(lambda p, x: dense(p, x, "Net"), inputs=True)(KERNEL, np.float32(ends))[1]
    amax = np.abs(np.float32(ends)).max()
    (rule,) = handover.qwix_rules(ranges)
    method, lo, hi = rule["act_calibration_method"].split(",")
    assert method == "fixed" and np.float32(hi) == -np.float32(lo) == (amax or np.float32(12.7))
    (rule,) = handover.qwix_rules(ranges, symmetric=False)
    _, lo, hi = rule["act_calibration_method"].split(",")
    assert np.isfinite(np.float32([lo, hi])).all()
    assert float(lo) <= 0 <= float(hi) and float(lo) < float(hi)
    step = (float(hi) - float(lo)) / 255
    assert float(lo) - step <= min(*ends, 0) and max(*ends, 0) <= float(hi) + step


def test_types_in_rules_may_be_dtypes(tmp_path):
    ranges = jr.ranges(lambda p, x: dense(p, x, "Net"), inputs=True)(KERNEL, jnp.ones(2))[1]
    types = {"act_qtype": jnp.float8_e4m3fn, "weight_qtype": None}
    (rule,) = handover.qwix_rules(ranges, **types, file=tmp_path / "rules.json")
    assert (rule["act_qtype"], rule["weight_qtype"]) == ("float8_e4m3fn", None)
    assert json.loads((tmp_path / "rules.json").read_text()) == [rule]


def test_paths_in_rules_are_regular_expressions():
    def f(params, x):
        with jax.named_scope("Net"):
            return dense(params["a.b"], x, "a.0")

    ranges = jr.ranges(f, inputs=True)({"a.b": KERNEL}, jnp.ones(2))[1]
    assert handover.qwix_rules(ranges, root="Net")[0]["module_path"] == r"a\.0"


# -- flax linen -------------------------------------------------------------------------------


def linen_model(dot_general_of=lambda layer: None):
    """Two Dense, one of them used in a method of its own; with a class of dot_general for each."""
    from flax import linen as nn

    class Net(nn.Module):
        def setup(self):
            self.up = nn.Dense(16, dot_general_cls=dot_general_of("up"))
            self.down = nn.Dense(4, dot_general_cls=dot_general_of("down"))

        def encode(self, x):
            return nn.relu(self.up(x))

        def __call__(self, x):
            return self.down(self.encode(x))

    return Net()


def linen_inputs(model, shape=(32, 8)):
    x = 3 * jax.random.normal(jax.random.key(0), shape)
    return model.init(jax.random.key(1), x), x


@pytest.fixture(scope="module")
def linen():
    """The plain model, its variables, an input, and what was seen."""
    pytest.importorskip("flax", reason="flax is not installed")
    model = linen_model()
    variables, x = linen_inputs(model)
    return model, variables, x, jr.ranges(jax.jit(model.apply), inputs=True)(variables, x)[1]


def test_module_paths_are_linens():
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            x = nn.Dense(8, name="in")(x)
            return nn.relu(nn.MultiHeadDotProductAttention(num_heads=2, name="attn")(x)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3,))(x)
            x, _ = nn.remat(Block)(name="first")(x, None)
            shared = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "length": 2}
            x, _ = nn.scan(Block, **shared)(name="rest")(x, None)
            return jnp.einsum("bti,ij->btj", x, self.param("w", nn.initializers.ones, (8, 2)))

    model = Net()
    variables, x = linen_inputs(model, (2, 5, 8))
    flat = {path[:-1] for path in flat_keys(variables["params"])}

    def products(f):
        return paths(unmeasured(jr.plan(f, inputs=True)(variables, x).sites))

    found = products(jax.jit(model.apply))
    assert {tuple(module.split("/")) if module else () for module, _, _ in found} == flat | {
        ("first", "attn"),
        ("rest", "attn"),
    }
    assert found[0] == ("Conv_0", "conv_general_dilated", 0)
    assert found[-1] == ("", "einsum", 0)
    assert [p[1:] for p in found if p[0] == "rest/attn"] == [("einsum", 0), ("einsum", 1)]
    assert products(jax.grad(lambda v, x: model.apply(v, x).sum())) == found


def flat_keys(tree):
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {tuple(entry.key for entry in path) for path, _ in leaves}


def test_module_paths_are_nnxs():
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])
            self.attn = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.attn(x)

    net, x = Net(nnx.Rngs(0)), jnp.ones((2, 5, 8))
    expected = [f"layers/{i}" for i in (0, 1)] + [f"attn/{p}" for p in ("query", "key", "value")]
    expected += ["attn", "attn", "attn/out"]

    def sites(f, *args):
        return unmeasured(jr.plan(f, inputs=True)(*args).sites)

    plain = sites(lambda net, x: net(x), net, x)
    with pytest.raises(handover.UnfitSiteError, match="2 of 8 .*take ranges of jr.scopes"):
        paths(plain)
    with pytest.warns(handover.UnfitSiteWarning):
        assert [p[0] for p in paths(plain, unfit="skip")] == [p for p in expected if p != "attn"]
    assert [p[0] for p in paths(sites(jr.scopes(lambda net, x: net(x)), net, x))] == expected
    assert [p[0] for p in paths(sites(jr.scopes(net), x), root="")] == expected


def test_operands_of_linens_modules(linen):
    _, variables, x, ranges = linen
    kernels = {name: np.abs(p["kernel"]).max() for name, p in variables["params"].items()}
    hidden = linen[0].apply(variables, x, method="encode")
    assert handover.aqt_bounds(ranges) == {
        "up": {"lhs": np.abs(x).max(), "rhs": kernels["up"]},
        "down": {"lhs": pytest.approx(float(hidden.max()), rel=1e-6), "rhs": kernels["down"]},
    }


# -- flax linen's fp8 -------------------------------------------------------------------------


OWG = "_overwrite_with_gradient"


def fp8_scaled(x, amax, dtype=jnp.float8_e4m3fn):
    """x / (amax / largest), saturated and rounded; and the divisor."""
    scale = np.float32(1) / (np.float32(jnp.finfo(dtype).max) / np.float32(amax))
    largest = float(jnp.finfo(dtype).max)
    return np.clip(x / scale, -largest, largest).astype(dtype).astype(np.float32), scale


def test_fp8_operations_have_the_scales_from_their_first_call(linen):
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    model, variables, x, ranges = linen
    fp8 = linen_model(lambda layer: nn.Fp8DirectDotGeneralOp)
    state = handover.flax_fp8(ranges, fp8.init(jax.random.key(1), x)[OWG])
    got = fp8.apply({**variables, OWG: state}, x)

    expected = np.asarray(x)
    bounds = handover.aqt_bounds(ranges)
    for name, after in (("up", lambda y: np.maximum(y, 0)), ("down", lambda y: y)):
        layer = variables["params"][name]
        lhs, lhs_scale = fp8_scaled(expected, bounds[name]["lhs"])
        rhs, rhs_scale = fp8_scaled(np.asarray(layer["kernel"]), bounds[name]["rhs"])
        expected = after(lhs @ rhs * (lhs_scale * rhs_scale) + np.asarray(layer["bias"]))
    plain = np.asarray(model.apply(variables, x))
    # Where a sum differs in its last bit, what is between two numbers of fp8 may fall otherwise.
    assert np.abs(got - expected).max() < 0.01 * np.abs(plain).max()
    assert np.median(np.abs(got - expected)) < 1e-6 * np.abs(plain).max()
    assert np.abs(got - plain).max() < 0.1 * np.abs(plain).max()


def test_fp8_variables_exactly(linen):
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    _, _, x, ranges = linen
    fp8 = linen_model(lambda layer: nn.Fp8DirectDotGeneralOp)
    first = fp8.init(jax.random.key(1), x)[OWG]
    state = handover.flax_fp8(ranges, first)
    abstract = jax.eval_shape(fp8.init, jax.random.key(1), x)[OWG]
    trees = (state, handover.flax_fp8(ranges, abstract))
    for mine, theirs in zip(*map(jax.tree.leaves, trees), strict=True):
        assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs)
    assert jax.tree.structure(state) == jax.tree.structure(first)
    bounds = handover.aqt_bounds(ranges)
    for name, ((_, found),) in ((n, ops.items()) for n, ops in state.items()):
        for what, side in (("input", "lhs"), ("kernel", "rhs")):
            history = np.asarray(found[f"{what}_amax_history"])
            assert history.shape == (1024,) and not history[1:].any()
            assert history[0] == bounds[name][side]
            assert found[f"{what}_scale"] == np.float32(bounds[name][side] / 448)
        # Nothing was seen of gradients.
        assert found["output_grad_scale"] == 1 and not found["output_grad_amax_history"].any()


def test_fp8_gradients_have_theirs(linen):
    nn = pytest.importorskip("flax.linen", reason="flax is not installed")
    model, variables, x, _ = linen
    ranges = jr.ranges(jax.grad(lambda v, x: (model.apply(v, x) ** 2).sum()), inputs=True)(
        variables, x
    )[1]
    fp8 = linen_model(lambda layer: nn.Fp8DirectDotGeneralOp)
    state = handover.flax_fp8(ranges, jax.eval_shape(fp8.init, jax.random.key(1), x)[OWG])
    last = 2 * np.asarray(model.apply(variables, x))
    hidden = np.asarray(model.apply(variables, x, method="encode"))
    first = np.where(hidden > 0, last @ np.asarray(variables["params"]["down"]["kernel"]).T, 0)
    for name, gradient in (("down", last), ("up", first)):
        (found,) = state[name].values()
        amax = np.abs(gradient).max()
        assert found["output_grad_amax_history"][0] == pytest.approx(amax, rel=1e-5)
        assert found["output_grad_scale"][0] == pytest.approx(amax / 57344, rel=1e-5)


def test_fp8_operations_have_to_be_found(linen):
    ranges = linen[3]
    variable = {"input_scale": jnp.ones(1), "input_amax_history": jnp.zeros(8)}
    with pytest.raises(ValueError, match="modules with products are 'up'"):
        handover.flax_fp8(ranges, {"upp": {"Fp8DotGeneralOp_0": variable}})
    with pytest.raises(ValueError, match="2 fp8 operations in that module, and 1 products"):
        handover.flax_fp8(ranges, {"up": {"a": variable, "b": variable}})
    with pytest.raises(ValueError, match="give the collection '_overwrite_with_gradient'"):
        handover.flax_fp8(ranges, {"params": {}})
    named = handover.flax_fp8(
        ranges, {"x": {"b": variable}}, lambda site: "x/b" if "/up/" in site else None
    )
    assert named["x"]["b"]["input_amax_history"][0] == np.abs(linen[2]).max()


def test_fp8_operations_of_one_module_go_by_their_numbers():
    def f(params, x):
        with jax.named_scope("Net"):
            return x @ params["a"] @ params["b"]

    params = {"a": jnp.eye(2), "b": 3 * jnp.eye(2)}
    ranges = jr.ranges(f, inputs=True)(params, jnp.array([1.0, -2.0]))[1]
    ops = {f"Fp8DotGeneralOp_{i}": {"kernel_amax_history": jnp.zeros(2)} for i in (0, 1)}
    found = handover.flax_fp8(ranges, ops)
    assert [op["kernel_amax_history"][0] for op in found.values()] == [1, 3]


def test_fp8_variables_of_unfit_operands_stay_what_they_are():
    def f(params, x):
        with jax.named_scope("Net"):
            return dense(params["d"], jnp.log(x), "d")

    ranges = jr.ranges(f, inputs=True)({"d": KERNEL}, jnp.array([0.0, 1.0]))[1]
    state = {"d": {"op": {"input_scale": jnp.full(1, 7.0), "kernel_scale": jnp.ones(1)}}}
    with pytest.raises(handover.UnfitSiteError, match="'d op input' \\(an infinity was seen"):
        handover.flax_fp8(ranges, state)
    with pytest.warns(handover.UnfitSiteWarning):
        found = handover.flax_fp8(ranges, state, unfit="skip")["d"]["op"]
    assert found["input_scale"] == 7 and found["kernel_scale"] == np.float32(1 / 448)


# -- development only: the real readers -------------------------------------------------------


@pytest.fixture
def qwix():
    with warnings.catch_warnings():  # it asks flax for what that has under another name now
        warnings.simplefilter("ignore", DeprecationWarning)
        yield pytest.importorskip("qwix", reason="qwix is not installed")


def quantized(qwix, model, rules, variables, x, stats_of=None):
    """A model quantized by these rules, its variables, and those of it that are abstract."""
    provider = qwix.PtqProvider([qwix.QuantizationRule(**rule) for rule in rules])
    made = qwix.quantize_model(model, provider)
    template = jax.eval_shape(made.init, jax.random.key(0), x)["params"]
    stats = {} if stats_of is None else handover.qwix_quant_stats(stats_of, template)
    params = qwix.quantize_params(variables["params"], template, stats)
    return made, params, provider


def expected_of(params, x, qparams_of):
    """The two layers with activations rounded by these parameters, and qwix's own weights."""
    for name, after in (("up", jax.nn.relu), ("down", lambda y: y)):
        kernel = params[name]["kernel"].array
        weights = kernel.qvalue.astype(jnp.float32) * kernel.scale
        x = after(qparams_of[name].round(x) @ weights + params[name]["bias"])
    return x


def operand_params(ranges, **how):
    """By module, of the range of its input: found by hand."""
    up = ranges["input/args/0"]
    down = ranges["jit(apply)/Net/Net.encode/custom_jvp_call/jit(relu)/max"]
    return {"up": jr.qparams(up, "int8", **how), "down": jr.qparams(down, "int8", **how)}


def test_qwix_rounds_as_our_scales_say(qwix, linen):
    model, variables, x, ranges = linen
    rules = handover.qwix_rules(ranges, symmetric=False)
    made, params, provider = quantized(qwix, model, rules, variables, x)
    assert not provider.get_unused_rules()
    expected = expected_of(params, x, operand_params(ranges))
    got = made.apply({"params": params}, x)
    largest = np.abs(model.apply(variables, x)).max()
    assert np.abs(got - expected).max() < 1e-5 * largest
    assert 1e-4 * largest < np.abs(got - model.apply(variables, x)).max() < 0.05 * largest
    far = made.apply({"params": params}, 3 * x)  # clipped, where a scale of its own would not
    assert np.abs(far - expected_of(params, 3 * x, operand_params(ranges))).max() < 1e-5 * largest


def test_qwix_takes_symmetric_ranges_and_floats(qwix, linen):
    model, variables, x, ranges = linen
    for qtype in ("int8", "float8_e4m3fn"):
        rules = handover.qwix_rules(ranges, act_qtype=qtype, weight_qtype=qtype)
        made, params, _ = quantized(qwix, model, rules, variables, x)
        error = np.abs(made.apply({"params": params}, x) - model.apply(variables, x)).max()
        assert error < 0.1 * np.abs(model.apply(variables, x)).max()


@pytest.mark.parametrize("method", ["absmax", "minmax"])
def test_qwix_makes_static_scales_of_our_statistics(qwix, linen, method):
    model, variables, x, ranges = linen
    rule = {"weight_qtype": "int8", "act_qtype": "int8", "act_static_scale": True}
    rules = [{**rule, "act_calibration_method": method}]
    made, params, _ = quantized(qwix, model, rules, variables, x, stats_of=ranges)
    for name, q in operand_params(ranges).items():
        scale = params[name]["dot_general0_lhs_scale"].array
        assert scale.shape == (1, 1)
        if method == "minmax":
            assert scale.item() == pytest.approx(q.scale.item(), rel=1e-6)
            assert params[name]["dot_general0_lhs_zero_point"].item() == q.zero_point
        else:
            amax = handover.aqt_bounds(ranges)[name]["lhs"]
            assert scale.item() == pytest.approx(amax / 127.5, rel=1e-6)
    if method == "minmax":
        expected = expected_of(params, x, operand_params(ranges))
        got = made.apply({"params": params}, x)
        assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_qwix_statistics_are_those_of_its_own_calibration(qwix, linen):
    """One step of QtProvider, whose means over a batch of one are what was seen."""
    model, variables, x, _ = linen
    x = x[:1]
    ranges = jr.ranges(model.apply, inputs=True)(variables, x)[1]
    rule = qwix.QuantizationRule(weight_qtype="int8", act_qtype="int8", act_static_scale=True)
    trained = qwix.quantize_model(model, qwix.QtProvider([rule]))
    template = trained.init(jax.random.key(0), x)["quant_stats"]
    _, after = trained.apply({**variables, "quant_stats": template}, x, mutable=["quant_stats"])
    ptq = qwix.quantize_model(model, qwix.PtqProvider([rule]))
    abstract = jax.eval_shape(ptq.init, jax.random.key(0), x)["params"]
    ours, theirs = handover.qwix_quant_stats(ranges, abstract), after["quant_stats"]
    assert jax.tree.structure(ours) == jax.tree.structure(jax.tree.map(lambda x: x, {**theirs}))
    # The first layer sees the same; the second what the first, quantized there, makes of it.
    for (path, mine), other in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        assert mine.shape == other.shape and mine.dtype == other.dtype
        exact = "up" in str(path) or "count" in str(path)
        assert np.allclose(mine, other, rtol=0 if exact else 0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_qwix_quantizes_attention_convolutions_and_einsums(qwix):
    from flax import linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(8, (3,))(x)
            x = nn.MultiHeadDotProductAttention(num_heads=2, name="attn")(x)
            return jnp.einsum("bti,ij->btj", x, self.param("w", nn.initializers.normal(), (8, 2)))

    model = Net()
    variables, x = linen_inputs(model, (2, 5, 8))
    ranges = jr.ranges(model.apply, inputs=True)(variables, x)[1]
    plain = model.apply(variables, x)
    made, params, provider = quantized(qwix, model, handover.qwix_rules(ranges), variables, x)
    assert not provider.get_unused_rules()
    error = np.abs(made.apply({"params": params}, x) - plain).max()
    assert error < 0.1 * np.abs(plain).max()

    rule = {"weight_qtype": "int8", "act_qtype": "int8", "act_static_scale": True}
    made, params, _ = quantized(qwix, model, [rule], variables, x, stats_of=ranges)
    error = np.abs(made.apply({"params": params}, x) - plain).max()
    assert error < 0.1 * np.abs(plain).max()
    scopes = [p for p in forward(ranges).forward if p.module == "attn" and p.op == "einsum"]
    for product in scopes:
        amax = max(max(-ranges[name].min, ranges[name].max) for name in product.site.operands)
        for side in ("lhs", "rhs"):
            scale = params["attn"][f"einsum{product.index}_{side}_scale"].array
            assert np.allclose(scale, amax / 127.5, rtol=1e-6)


def test_qwix_statistics_want_the_same_model(qwix, linen):
    model, variables, x, ranges = linen
    del variables
    rule = qwix.QuantizationRule(weight_qtype="int8", act_qtype="int8", act_static_scale=True)
    made = qwix.quantize_model(model, qwix.PtqProvider([rule]))
    template = jax.eval_shape(made.init, jax.random.key(0), x)["params"]
    twice = jr.ranges(lambda v, x: model.apply(v, model.apply(v, x)[..., :1] * jnp.ones(8)),
                      inputs=True)(linen[1], x)[1]  # fmt: skip
    with pytest.raises(
        ValueError, match="scales for 1 x dot_general in module '(up|down)', and the ranges have 2"
    ):
        handover.qwix_quant_stats(twice, template)
    with pytest.raises(ValueError, match="params has no static scale"):
        handover.qwix_quant_stats(ranges, linen[1]["params"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_qwix_quantizes_nnx(qwix):
    nnx = pytest.importorskip("flax.nnx", reason="flax is not installed")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(2)])
            self.head = nnx.Linear(8, 4, rngs=rngs)

        def __call__(self, x):
            for layer in self.layers:
                x = nnx.relu(layer(x))
            return self.head(x)

    model = Net(nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (16, 8))
    ranges = jr.ranges(lambda model, x: model(x), inputs=True)(model, x)[1]
    rules = handover.qwix_rules(ranges)
    assert [rule["module_path"] for rule in rules] == ["layers/0", "layers/1", "head"]
    provider = qwix.PtqProvider([qwix.QuantizationRule(**rule) for rule in rules])
    fixed = qwix.quantize_model(model, provider, x)
    assert not provider.get_unused_rules()
    assert np.abs(fixed(x) - model(x)).max() < 0.05 * np.abs(model(x)).max()

    rule = qwix.QuantizationRule(weight_qtype="int8", act_qtype="int8", act_static_scale=True)
    provider = qwix.PtqProvider([rule])
    made = nnx.eval_shape(lambda: qwix.quantize_model(Net(nnx.Rngs(0)), provider, x))
    stats = handover.qwix_quant_stats(ranges, nnx.to_pure_dict(nnx.state(made)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    nnx.update(made, qwix.quantize_params(params, made, stats))
    assert np.abs(made(x) - fixed(x)).max() < 1e-5 * np.abs(fixed(x)).max()


def test_aqt_rounds_as_our_bounds_say(linen):
    aqt_flax = pytest.importorskip("aqt.jax.v2.flax.aqt_flax", reason="aqtp is not installed")
    from aqt.jax.v2 import calibration, config

    model, variables, x, ranges = linen
    bounds = handover.aqt_bounds(ranges)

    def dot_general(name):
        made = config.config_v4(fwd_bits=8, dlhs_bits=None, drhs_bits=None)
        for side in ("lhs", "rhs"):
            constant = functools.partial(calibration.ConstantCalibration, bound=bounds[name][side])
            getattr(made.fwd.dg_quantizer, side).calibration = constant
        return functools.partial(aqt_flax.AqtDotGeneral, made)

    def rounded(value, bound):
        scale = np.float32(bound) / np.float32(127.5)  # half a code beyond 127
        return np.clip(np.rint(value / scale), -127, 127) * scale

    made = linen_model(dot_general)
    got = jax.jit(made.apply)(variables, x, rngs={"params": jax.random.key(0)})
    expected = np.asarray(x)
    for name, after in (("up", lambda y: np.maximum(y, 0)), ("down", lambda y: y)):
        kernel, bias = (np.asarray(variables["params"][name][k]) for k in ("kernel", "bias"))
        lhs, rhs = (rounded(v, bounds[name][s]) for v, s in ((expected, "lhs"), (kernel, "rhs")))
        expected = after(lhs @ rhs + bias)
    plain = np.asarray(model.apply(variables, x))
    assert np.abs(got - expected).max() < 1e-4 * np.abs(plain).max()
    assert 1e-4 * np.abs(plain).max() < np.abs(got - plain).max() < 0.05 * np.abs(plain).max()


def onnx_model(file, w, b):
    """relu(X @ W + B), of tensors X, H, Y."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Gemm", ["X", "W", "B"], ["H"]),
        helper.make_node("Relu", ["H"], ["R"]),
        helper.make_node("Neg", ["R"], ["Y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("X", float32, [None, w.shape[0]])],
        [helper.make_tensor_value_info("Y", float32, [None, w.shape[1]])],
        [onnx.numpy_helper.from_array(w, "W"), onnx.numpy_helper.from_array(b, "B")],
    )
    opset = helper.make_opsetid("", 21)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), file)


ONNX_NAMES = {"input/x": "X", "add": "H", "custom_jvp_call/jit(relu)/max": "R", "neg": "Y"}


def onnx_ranges():
    rng = np.random.default_rng(0)
    w, b = rng.normal(size=(8, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    x = rng.normal(size=(64, 8)).astype(np.float32) + 0.5
    return (w, b, x), jr.ranges(lambda x: -jax.nn.relu(x @ w + b), inputs=True)(x)[1]


def test_onnxruntime_quantizes_by_our_ranges(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxruntime.quantization.calibrate", reason="it has no load_tensors_data")
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, load_tensors_data, quantize_static

    (w, b, x), ranges = onnx_ranges()
    onnx_model(tmp_path / "net.onnx", w, b)
    handover.onnxruntime_ranges(ranges, ONNX_NAMES, file=tmp_path / "cache.json")
    loaded = load_tensors_data(tmp_path / "cache.json")
    assert sorted(loaded.keys()) == sorted(ONNX_NAMES.values())
    quantize_static(
        *(tmp_path / "net.onnx", tmp_path / "int8.onnx", None),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibration_cache_path=tmp_path / "cache.json",
    )
    made = onnx.load(tmp_path / "int8.onnx")
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in made.graph.initializer}
    for site, name in {"input/x": "X", "custom_jvp_call/jit(relu)/max": "R"}.items():
        q = jr.qparams(ranges[site], "int8")
        assert constants[f"{name}_scale"] == pytest.approx(q.scale, rel=1e-6)
        assert constants[f"{name}_zero_point"] == q.zero_point

    session = onnxruntime.InferenceSession(
        tmp_path / "int8.onnx", providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {"X": x})
    scale = np.abs(w).max() / 127  # as it quantizes weights
    rounded = jr.qparams(ranges["input/x"], "int8").round(x) @ (np.rint(w / scale) * scale) + b
    expected = -jr.qparams(ranges["custom_jvp_call/jit(relu)/max"], "int8").round(
        np.maximum(rounded, 0)
    )
    step = jr.qparams(ranges["neg"], "int8").scale
    assert np.abs(got - expected).max() < 2 * step
    assert np.abs(got - (-np.maximum(x @ w + b, 0))).max() < 0.05 * np.abs(expected).max()


def test_onnxruntimes_reader_reads_our_table(tmp_path):
    tables = pytest.importorskip(
        "onnxruntime.quantization.CalTableFlatBuffers.TrtTable",
        reason="onnxruntime is not installed",
    )
    _, ranges = onnx_ranges()
    handover.onnxruntime_table(ranges, ONNX_NAMES, file=tmp_path / "calibration.flatbuffers")
    table = tables.TrtTable.GetRootAs((tmp_path / "calibration.flatbuffers").read_bytes())
    pairs = [(table.Dict(i).Key(), table.Dict(i).Value()) for i in range(table.DictLength())]
    found = {key.decode(): np.float32(value.decode()) for key, value in pairs}
    assert found == {
        name: max(-ranges[site].min, ranges[site].max) for site, name in ONNX_NAMES.items()
    }


def test_a_table_is_onnxruntimes_own(tmp_path, monkeypatch):
    """For ranges that reach further above zero than below; see `onnxruntime_table`."""
    quant = pytest.importorskip("onnxruntime.quantization", reason="onnxruntime is not installed")
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")
    data = {"b": (-1.5, 2.25), "a": (0, 1e-5), "c": (-3, 1e10)}
    arrays = {
        name: quant.TensorData(lowest=np.float32(lo), highest=np.float32(hi))
        for name, (lo, hi) in data.items()
    }
    quant.write_calibration_table(arrays, str(tmp_path))
    theirs = read_flatbuffers((tmp_path / "calibration.flatbuffers").read_bytes())
    ours = read_flatbuffers(handover.onnxruntime_table(ranged(**data)))
    as_numbers = lambda pairs: {name: np.float32(value) for name, value in pairs}  # noqa: E731
    assert as_numbers(ours) == as_numbers(theirs)
    theirs = [line.split() for line in (tmp_path / "calibration.cache").read_text().splitlines()]
    lines = handover.onnxruntime_table(ranged(**data), form="text").decode().splitlines()
    assert as_numbers(map(str.split, lines)) == as_numbers(theirs)
    assert [line.split()[0] for line in lines] == [name for name, _ in theirs]
