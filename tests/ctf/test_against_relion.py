"""Signs and handedness of every factor of the forward model, asked of RELION itself."""

import subprocess

import mrcfile
import numpy as np
import pytest
import starfile
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from cryorefine.ctf.aberrations import even_phase, magnify, odd_phase
from cryorefine.ctf.ctf import CtfParameters, ctf
from cryorefine.geometry import angles, matrices

BOX, PIXEL = 48, 1.5
PARAMS = CtfParameters(300.0, 2.7, 0.1, 15000.0, 12000.0, 30.0)
MAGNIFICATION = np.array([[1.05, 0.04], [-0.02, 0.96]])
FREQUENCY = np.fft.fftfreq(BOX)
FY, FX = np.meshgrid(FREQUENCY, FREQUENCY, indexing="ij")  # cycles per pixel


class Blobs:
    """Gaussians with a transform known everywhere, so that no interpolation is ours."""

    width = 1.6

    def __init__(self):
        rng = np.random.default_rng(3)
        self.positions = rng.uniform(-9, 9, (12, 3))  # x, y, z in pixels from the centre
        self.heights = rng.uniform(0.5, 2, 12)

    def map(self):
        axis = np.arange(BOX) - BOX // 2
        z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
        result = np.zeros((BOX, BOX, BOX))
        for height, p in zip(self.heights, self.positions, strict=True):
            square = (x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2
            result += height * np.exp(-square / 2 / self.width**2)
        return result

    def image(self, a, magnification=None, odd=None, even=None):
        """Fourier transform of the image of orientation A, origin at the first pixel."""
        fx, fy = (FX, FY) if magnification is None else magnify(magnification, FX, FY)
        q = np.stack([fx, fy, np.zeros_like(fx)], axis=-1) @ a
        envelope = (2 * np.pi * self.width**2) ** 1.5 * np.exp(-2 * np.pi**2 * self.width**2 * (q**2).sum(-1))
        transform = (self.heights * np.exp(-2j * np.pi * q @ self.positions.T)).sum(-1) * envelope
        x, y = fx.ravel() / PIXEL, fy.ravel() / PIXEL
        transform *= ctf(PARAMS, x, y, even=None if even is None else even_phase(even, x, y)).reshape(
            BOX, BOX
        )
        if odd is not None:
            transform *= np.exp(1j * odd_phase(*odd, 300.0, 2.7, x, y)).reshape(BOX, BOX)
        return transform


@pytest.fixture(scope="module")
def blobs():
    return Blobs()


def write_star(path, images, a, optics, offset=(0.0, 0.0)):
    columns = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnImagePixelSize": PIXEL,
        "rlnMicrographPixelSize": PIXEL,
        "rlnImageSize": BOX,
        "rlnImageDimensionality": 2,
    } | optics
    rows = [
        f"{i + 1:06d}@{images} m.mrc 1 15000 12000 30 {rot:.6f} {tilt:.6f} {psi:.6f} {offset[0]} {offset[1]}"
        for i, (rot, tilt, psi) in enumerate(zip(*angles(a), strict=True))
    ]
    names = (
        "ImageName MicrographName OpticsGroup DefocusU DefocusV DefocusAngle "
        "AngleRot AngleTilt AnglePsi OriginXAngst OriginYAngst"
    ).split()
    path.write_text(
        "# version 30001\n\ndata_optics\n\nloop_\n"
        + "".join(f"_{name}\n" for name in columns)
        + " ".join(map(str, columns.values()))
        + "\n\n# version 30001\n\ndata_particles\n\nloop_\n"
        + "".join(f"_rln{name}\n" for name in names)
        + "\n".join(rows)
        + "\n\n"
    )


def write_mrc(path, data):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.asarray(data, dtype=np.float32))
        mrc.voxel_size = PIXEL


def similarity(a, b):
    return float((a * b.conj()).sum().real / np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum()))


@pytest.fixture
def project(tmp_path, relion, blobs):
    program = relion("project")

    def run(a, optics=None, offset=(0.0, 0.0)):
        write_mrc(tmp_path / "map.mrc", blobs.map())
        write_star(tmp_path / "in.star", "unused.mrcs", a[None], optics or {}, offset)
        command = [
            program,
            "--i",
            "map.mrc",
            "--ang",
            "in.star",
            "--o",
            "out",
            "--ctf",
            "--angpix",
            str(PIXEL),
        ]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        image = mrcfile.read(tmp_path / "out.mrcs").reshape(BOX, BOX)
        return np.fft.fft2(np.fft.ifftshift(image.astype(float)))

    return run


@pytest.fixture
def reconstruct(tmp_path, relion, blobs):
    """Likeness to the true map of RELION's reconstructions from images made by our forward model."""
    program = relion("reconstruct")
    a = Rotation.random(100, random_state=5).as_matrix()
    shell = np.sqrt((np.stack(np.meshgrid(*[FREQUENCY * BOX] * 3)) ** 2).sum(axis=0))
    inside = (shell > 2) & (shell < 14)
    truth = np.fft.fftn(blobs.map())[inside]

    def run(*candidates, **forward):
        images = [np.fft.fftshift(np.fft.ifft2(blobs.image(one, **forward)).real) for one in a]
        write_mrc(tmp_path / "images.mrcs", images)
        results = []
        for optics in candidates:
            write_star(tmp_path / "in.star", "images.mrcs", a, optics)
            command = [program, "--i", "in.star", "--o", "out.mrc", "--ctf", "--skip_gridding"]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
            volume = mrcfile.read(tmp_path / "out.mrc").astype(float)
            results.append(similarity(np.fft.fftn(volume)[inside], truth))
        return results

    return run


@pytest.mark.parametrize("intact", [False, True])
def test_ctf_images_are_equal(tmp_path, relion, intact):
    command = [
        relion("ctf_toolbox"),
        "--simulate",
        "ctf.mrc",
        "--box",
        "64",
        "--angpix",
        "1.5",
        "--defU",
        "15000",
    ]
    command += ["--defV", "12000", "--defAng", "30", "--phase_shift", "20", "--Cs", "2.7", "--Q0", "0.1"]
    subprocess.run(
        command + ["--ctf_intact_first_peak"] * intact, cwd=tmp_path, check=True, capture_output=True
    )
    params = CtfParameters(300.0, 2.7, 0.1, 15000.0, 12000.0, 30.0, 20.0)
    y, x = np.mgrid[-32:32, -32:32] / (64 * 1.5)
    ours = ctf(params, x.ravel(), y.ravel(), intact_first_peak=intact).reshape(64, 64)
    np.testing.assert_allclose(ours, mrcfile.read(tmp_path / "ctf.mrc"), atol=1e-6)


def test_projection_is_the_slice_at_the_transposed_matrix(project, blobs):
    a = matrices(33.0, 64.0, -77.0)
    theirs = project(a)
    assert similarity(theirs, blobs.image(a)) > 0.999
    assert similarity(theirs, blobs.image(a.T)) < 0.9


def test_offset_is_the_move_that_centres_the_image(project, blobs):
    a = matrices(33.0, 64.0, -77.0)
    theirs = project(a, offset=(3.0, -4.5))
    centred = theirs * np.exp(-2j * np.pi * (FX * 3.0 - FY * 4.5) / PIXEL)  # content moves by +offset
    assert similarity(centred, blobs.image(a)) > 0.999


def test_even_aberrations_are_added_to_gamma(project, blobs):
    a = matrices(33.0, 64.0, -77.0)
    even = [0.3, 5.0, -4.0, 3.0, 20.0, -30.0, 25.0, 40.0, 10.0]
    theirs = project(a, {"rlnEvenZernike": "[" + ",".join(map(str, even)) + "]"})
    assert similarity(theirs, blobs.image(a, even=even)) > 0.999
    assert similarity(theirs, blobs.image(a, even=-np.array(even))) < 0.9


def test_sign_of_beam_tilt(reconstruct):
    tilts = [(12.0, -8.0), (0.0, 0.0), (-12.0, 8.0), (12.0, 8.0), (-8.0, 12.0)]
    right, *wrong = reconstruct(
        *({"rlnBeamTiltX": x, "rlnBeamTiltY": y} for x, y in tilts), odd=([], *tilts[0])
    )
    assert right > 0.99
    assert max(wrong) < right - 0.003


def test_sign_and_order_of_odd_coefficients(reconstruct):
    odd = [2.0, -1.0, 120.0, 30.0, -40.0, 60.0]
    candidates = [odd, [0.0] * 6, [-c for c in odd], odd[::-1]]
    right, *wrong = reconstruct(
        *({"rlnOddZernike": "[" + ",".join(map(str, c)) + "]"} for c in candidates), odd=(odd, 0.0, 0.0)
    )
    assert right > 0.99
    assert max(wrong) < right - 0.001


def test_magnification_matrix_acts_on_slice_and_ctf(reconstruct):
    candidates = [MAGNIFICATION, np.eye(2), MAGNIFICATION.T, np.linalg.inv(MAGNIFICATION)]
    right, *wrong = reconstruct(
        *({f"rlnMagMat{i}{j}": m[i, j] for i in (0, 1) for j in (0, 1)} for m in candidates),
        magnification=MAGNIFICATION,
    )
    assert right > 0.99
    assert max(wrong) < right - 0.001


def test_true_beam_tilt_explains_independent_images(shared):
    """Images simulated from atoms by another program agree best with the tilt in its truth file."""
    folder = shared / "data" / "sim_betagal_ctf"
    particles = starfile.read(folder / "truth.star")["particles"]
    half_maps = [mrcfile.read(folder / "relion5" / f"half{i}_unfil.mrc") for i in (1, 2)]
    volume = (half_maps[0] + half_maps[1]) * mrcfile.read(folder / "relion5" / "mask.mrc")
    box, pixel = 160, 1.4
    transform = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(volume))).astype(np.complex64)
    frequency = np.fft.fftfreq(box)
    fy, fx = np.meshgrid(frequency, frequency, indexing="ij")
    radius = np.hypot(fx, fy) / pixel
    x, y = fx[(radius > 1 / 20) & (radius < 1 / 5)], fy[(radius > 1 / 20) & (radius < 1 / 5)]
    scores = dict.fromkeys([(1, 1), (0, 0), (-1, -1), (1, -1)], 0.0)
    with mrcfile.mmap(folder / "particles.mrcs") as stack:
        for i in range(0, 700, 25):
            row = particles.iloc[i]
            a = matrices(row.rlnAngleRot, row.rlnAngleTilt, row.rlnAnglePsi)
            index = ((np.stack([x, y, 0 * x], axis=-1) @ a) * box + box // 2)[:, ::-1].T
            reference = map_coordinates(transform, index, order=1)
            params = CtfParameters(300.0, 2.7, 0.1, row.rlnDefocusU, row.rlnDefocusV, row.rlnDefocusAngle)
            image = np.fft.fft2(np.fft.ifftshift(stack.data[i].astype(np.float32)))
            image = image[(radius > 1 / 20) & (radius < 1 / 5)]
            image = image * np.exp(-2j * np.pi * (x * row.rlnOriginXAngst + y * row.rlnOriginYAngst) / pixel)
            agreement = reference.conj() * ctf(params, x / pixel, y / pixel)[0] * image
            for sx, sy in scores:
                tilt = odd_phase([], 1.2 * sx, -0.7 * sy, 300.0, 2.7, x / pixel, y / pixel)
                scores[sx, sy] += (agreement * np.exp(-1j * tilt)).real.sum()
    assert max(scores, key=scores.__getitem__) == (1, 1)
