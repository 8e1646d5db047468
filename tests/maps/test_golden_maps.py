"""RELION's own numbers for stored half maps, masks and post-processing tables."""

import numpy as np
import pytest

from cryorefine.io.mrc import read_map
from cryorefine.io.mtf import read_mtf
from cryorefine.io.star import read_star
from cryorefine.maps import filters, fourier, fsc, sharpen, solvent
from cryorefine.maps.mask_recipe import MaskRecipe, mask_from_recipe
from cryorefine.maps.shells import apply_gain, radius_table, shell_frequencies

CORRECTED = "rlnFourierShellCorrelationCorrected"
UNMASKED = "rlnFourierShellCorrelationUnmaskedMaps"
MASKED = "rlnFourierShellCorrelationMaskedMaps"
RANDOMISED = "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"
PARTICLE = "rlnFourierShellCorrelationParticleMaskFraction"
CASES = {
    "golden_halfmaps": ("half1_unfil.mrc", "half2_unfil.mrc", "post.star", "post.mrc"),
    "relion5_refine3d": (
        "run_half1_class001_unfil.mrc",
        "run_half2_class001_unfil.mrc",
        "postprocess.star",
        "postprocess.mrc",
    ),
}


@pytest.fixture(params=CASES)
def case(request, betagal):
    folder = betagal / request.param
    first, second, star, sharpened = (folder / name for name in CASES[request.param])
    halves = [read_map(path, pixel_size=3.54).data for path in (first, second)]
    mask = read_map(folder / "mask.mrc").data
    return halves, mask, read_star(star), read_map(sharpened).data


@pytest.mark.parametrize(
    ("folder", "name", "lowpass"),
    [("golden_halfmaps", "half1_unfil.mrc", 25.0), ("relion5_refine3d", "run_class001.mrc", 15.0)],
)
def test_mask(betagal, folder, name, lowpass):
    volume = read_map(betagal / folder / name, pixel_size=3.54)
    density = filters.lowpass(volume.data.astype(np.float64), 3.54, lowpass)
    mask = mask_from_recipe(density, MaskRecipe(0.02, extend=2, soft_edge=4))
    np.testing.assert_allclose(mask, read_map(betagal / folder / "mask.mrc").data, atol=1e-5)


def test_fsc_curves_and_resolution(case):
    halves, mask, star, _ = case
    table, general = star["fsc"], star["general"]
    pair = solvent.HalfMaps(*halves)
    unmasked, start = pair.unmasked, pair.first_randomised_shell
    curves = solvent.solvent_corrected_fsc(pair, mask)
    np.testing.assert_allclose(unmasked, table[UNMASKED], atol=1e-4)
    np.testing.assert_allclose(curves.masked, table[MASKED], atol=1e-4)
    assert fsc.shell_resolution(start, 64, 3.54) == pytest.approx(general["rlnRandomiseFrom"], abs=1e-4)
    # RELION's curve comes from a single draw, whose noise in so small a box is up to 0.1.
    assert np.abs(curves.randomised - table[RANDOMISED])[: start + 1].max() < 0.05
    assert np.abs(curves.randomised - table[RANDOMISED]).max() < 0.3
    assert np.abs(curves.randomised - table[RANDOMISED]).mean() < 0.03
    resolution = fsc.resolution(curves.corrected, 64, 3.54)
    assert resolution == pytest.approx(general["rlnFinalResolution"], abs=1e-5)
    factor = 0.476 / np.mean(mask > 0.5)
    assert factor == pytest.approx(general["rlnParticleBoxFractionSolventMask"], abs=1e-5)
    np.testing.assert_allclose(fsc.part_fsc(unmasked, factor), table[PARTICLE], atol=1e-4)


def test_a_single_draw_moves_the_resolution_and_the_average_does_not(betagal):
    """RELION draws once: its resolution of these maps ranges from 10.3 to 12.6 A."""
    folder = betagal / "golden_halfmaps"
    pair = solvent.HalfMaps(*(read_map(folder / name).data for name in CASES["golden_halfmaps"][:2]))
    mask = read_map(folder / "mask.mrc").data
    average = solvent.solvent_corrected_fsc(pair, mask)
    assert fsc.resolution(average.corrected, 64, 3.54) == pytest.approx(10.788571, abs=1e-5)
    drawn = [solvent.solvent_corrected_fsc(pair, mask, rng=np.random.default_rng(seed)) for seed in range(8)]
    assert len({fsc.resolution_shell(curves.corrected) for curves in drawn}) > 1


def test_sharpening_with_relions_fsc(betagal, case):
    halves, _, star, sharpened = case
    guinier, general = star["guinier"], star["general"]
    spectrum = fourier.forward((halves[0] + halves[1]) / 2)
    amplitudes = sharpen.Amplitudes(spectrum)
    np.testing.assert_allclose(amplitudes.guinier(), guinier["rlnLogAmplitudesOriginal"], atol=1e-4)
    gain = np.ones(len(radius_table(64)))
    if "rlnLogAmplitudesMTFCorrected" in guinier:
        frequency, value = read_mtf(betagal / "mtf_k2_200kV.star")
        gain *= sharpen.mtf_gain(frequency, value, 0.885, 64, 3.54)
        points = amplitudes.guinier(gain)
        np.testing.assert_allclose(points, guinier["rlnLogAmplitudesMTFCorrected"], atol=1e-4)
    gain *= sharpen.shell_gain(sharpen.fsc_weights(star["fsc"][CORRECTED].to_numpy()), 64)
    points = amplitudes.guinier(gain)
    np.testing.assert_allclose(points, guinier["rlnLogAmplitudesWeighted"], atol=1e-3)
    if "rlnFittedSlopeGuinierPlot" in general:
        fit = sharpen.fit_guinier(shell_frequencies(64, 3.54) ** 2, points, 15.0)
        assert fit.slope == pytest.approx(general["rlnFittedSlopeGuinierPlot"], rel=1e-3)
        assert fit.intercept == pytest.approx(general["rlnFittedInterceptGuinierPlot"], rel=1e-3)
        assert fit.correlation == pytest.approx(general["rlnCorrelationFitGuinierPlot"], rel=1e-3)
        assert fit.b_factor == pytest.approx(general["rlnBfactorUsedForSharpening"], rel=1e-3)
        gain *= filters.bfactor_gain(radius_table(64), 64, 3.54, fit.b_factor)
    volume = fourier.inverse(apply_gain(spectrum, gain), 64)
    np.testing.assert_allclose(volume, sharpened, atol=1e-4 * np.abs(sharpened).max())


def test_tables_of_a_whole_tutorial_follow_from_their_own_columns(shared):
    files = sorted((shared / "data" / "hiv_sta_relion5_metadata" / "PostProcess").glob("*/postprocess.star"))
    assert len(files) == 18
    for file in files:
        star = read_star(file)
        table, guinier, general = star["fsc"], star["guinier"], star["general"]
        size = 2 * (len(table) - 1)
        pixel_size = table["rlnAngstromResolution"][1] / size
        start = fsc.first_shell_below(table[UNMASKED].to_numpy(), 0.8)
        from_shell = fsc.shell_resolution(start, size, pixel_size)
        assert from_shell == pytest.approx(general["rlnRandomiseFrom"], abs=1e-4), file
        corrected = fsc.corrected_fsc(table[MASKED].to_numpy(), table[RANDOMISED].to_numpy(), start)
        np.testing.assert_allclose(corrected, table[CORRECTED], atol=1e-4, err_msg=str(file))
        resolution = fsc.resolution(corrected, size, pixel_size)
        assert resolution == pytest.approx(general["rlnFinalResolution"], abs=1e-4), file
        part = fsc.part_fsc(table[UNMASKED].to_numpy(), general["rlnParticleBoxFractionSolventMask"])
        np.testing.assert_allclose(part, table[PARTICLE], atol=1e-4, err_msg=str(file))
        weights = sharpen.fsc_weights(corrected)
        used = weights > 0
        before = guinier.get("rlnLogAmplitudesMTFCorrected", guinier["rlnLogAmplitudesOriginal"])
        weighted = guinier["rlnLogAmplitudesWeighted"].to_numpy()
        np.testing.assert_allclose(before[used] + np.log(weights[used]), weighted[used], atol=1e-3)
        assert (weighted[~used] == sharpen.NO_AMPLITUDE).all(), file
        if "rlnFittedSlopeGuinierPlot" in general:
            fit = sharpen.fit_guinier(shell_frequencies(size, pixel_size) ** 2, weighted, 10.0)
            assert fit.slope == pytest.approx(general["rlnFittedSlopeGuinierPlot"], rel=1e-3)
            assert fit.intercept == pytest.approx(general["rlnFittedInterceptGuinierPlot"], rel=1e-3)
            assert fit.b_factor == pytest.approx(general["rlnBfactorUsedForSharpening"], rel=1e-3)
            assert fit.correlation == pytest.approx(general["rlnCorrelationFitGuinierPlot"], rel=1e-3)
