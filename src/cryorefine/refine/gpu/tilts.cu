// Tilt images of a particle in volumes: counterparts of tomo/kernels.py and refine/particle_reconstruction.py.

// Adds to a voxel of sums of shape (crop, crop, crop / 2 + 1, 4); negative indices count from the end.
__device__ inline void add_tilt(long long* sums, double units, double weight_units, int crop, int z, int y, int x,
                                float re, float im, float weight, float seen)
{
    const long long row = (z < 0 ? z + crop : z) * static_cast<long long>(crop) + (y < 0 ? y + crop : y);
    long long* at = sums + 4 * (row * (crop / 2 + 1) + x);
    add_units(at, re, units);
    add_units(at + 1, im, units);
    add_units(at + 2, weight, weight_units);
    add_units(at + 3, seen, weight_units);
}

// Lay slices into a Fourier volume, its weights and the number of images that saw each place, in whole numbers of
// 1 / units: a thread for each pixel of each image.
extern "C" __global__ void insert_tilts(long long* sums, double units, double weight_units, int crop, int box,
                                        const double* matrices, double factor, const float2* images,
                                        const float* gains, const float* use)
{
    const int width = box / 2 + 1, pixels = box * width, half = crop / 2;
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long n = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    const int kx = p % width, row = p / width, ky = 2 * row < box ? row : row - box;
    if (4 * (kx * kx + ky * ky) > box * box || !(use[n * pixels + p] > 0))
        return;
    const double* m = matrices + 9 * n;
    double x = factor * (kx * m[0] + ky * m[3]);
    double y = factor * (kx * m[1] + ky * m[4]);
    double z = factor * (kx * m[2] + ky * m[5]);
    const float area = static_cast<float>(factor * factor), gain = gains[n * pixels + p];
    const float square = area * gain * gain, re = area * images[n * pixels + p].x;
    float im = area * images[n * pixels + p].y;
    if (x < 0) {
        x = -x;
        y = -y;
        z = -z;
        im = -im;
    }
    const int ix = static_cast<int>(floor(x)), iy = static_cast<int>(floor(y)), iz = static_cast<int>(floor(z));
    for (int corner = 0; corner < 8; ++corner) {
        const int jx = ix + (corner & 1), jy = iy + (corner >> 1 & 1), jz = iz + (corner >> 2);
        if (jx > half || jy >= half || jz >= half || jy < -half || jz < -half)
            continue;
        const float part = static_cast<float>((1 - fabs(x - jx)) * (1 - fabs(y - jy)) * (1 - fabs(z - jz)));
        add_tilt(sums, units, weight_units, crop, jz, jy, jx, part * re, part * im, part * square, part * area);
        // Both mates of the plane x = 0 are stored.
        if (jx == 0 && kx > 0 && jy > -half && jz > -half)
            add_tilt(sums, units, weight_units, crop, -jz, -jy, 0, part * re, -part * im, part * square, part * area);
    }
}

// Every voxel within one voxel of a slice takes the slice's value at its foot point, times one minus its distance:
// a thread for each voxel, which adds the images up in their order. Images have two rows and columns more than
// their size, and ky runs from -size / 2 on.
extern "C" __global__ void gather_slices(float4* sums, int limit, const float4* images, const double* matrices,
                                         const double* reach, int count, int size, double ratio)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel voxel_ = voxel(i, limit, limit + 1);
    if (!voxel_.inside)
        return;
    const double x = voxel_.x, y = voxel_.y, z = voxel_.z, square = x * x + y * y + z * z;
    const int half = size / 2, columns = half + 3;
    float4 total = {0, 0, 0, 0};
    for (int n = 0; n < count; ++n) {
        const double far = reach[n] / ratio + 1 < limit ? reach[n] / ratio + 1 : limit;
        const double* m = matrices + 9 * n;
        const float part = 1 - static_cast<float>(fabs(m[6] * x + m[7] * y + m[8] * z));
        if (square > far * far || part <= 0)
            continue;
        float u = static_cast<float>(ratio * (m[0] * x + m[1] * y + m[2] * z));
        float v = static_cast<float>(ratio * (m[3] * x + m[4] * y + m[5] * z));
        const float mate = u >= 0 ? 1.0f : -1.0f;
        u *= mate;
        v = v * mate + half;
        const int column = static_cast<int>(u), line = static_cast<int>(v);
        if (column > half || v < 0 || line > 2 * half)
            continue;
        const float fu = u - column, fv = v - line;
        const float4* p = images + (static_cast<long long>(n) * (size + 2) + line) * columns + column;
        const float4 a = p[0], b = p[1], c = p[columns], d = p[columns + 1];
        const float wd = fu * fv * part, wb = fu * part - wd, wc = fv * part - wd, wa = part - wb - wc - wd;
        total.x += wa * a.x + wb * b.x + wc * c.x + wd * d.x;
        total.y += mate * (wa * a.y + wb * b.y + wc * c.y + wd * d.y);
        total.z += wa * a.z + wb * b.z + wc * c.z + wd * d.z;
    }
    float4* at = sums + position(voxel_.z, voxel_.y, voxel_.x, limit);
    at->x += total.x;
    at->y += total.y;
    at->z += total.z;
}
