// Fourier volumes of shape (2 limit + 1, 2 limit + 1, limit + 2): counterparts of volume.py and reconstruct.py.

struct Voxel {
    int z, y, x;  // logical indices
    bool inside;  // of the array
};

// Voxel number i of an array of `width` columns in x.
__host__ __device__ inline Voxel voxel(long long i, int limit, int width)
{
    const long long edge = 2 * limit + 1;
    Voxel v;
    v.x = static_cast<int>(i % width);
    v.y = static_cast<int>(i / width % edge) - limit;
    v.z = static_cast<int>(i / width / edge) - limit;
    v.inside = v.z <= limit;
    return v;
}

__host__ __device__ inline long long position(int z, int y, int x, int limit)
{
    return ((static_cast<long long>(z) + limit) * (2 * limit + 1) + y + limit) * (limit + 2) + x;
}

// Both Friedel mates with x = 0 get the sum of the two: a thread for each voxel of that plane.
extern "C" __global__ void enforce_friedel(float2* numerator, float* weight, int limit)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel v = voxel(i, limit, 1);
    if (!v.inside || v.z < 0 || (v.z == 0 && v.y < 0))
        return;
    const long long a = position(v.z, v.y, 0, limit), b = position(-v.z, -v.y, 0, limit);
    // The origin is its own mate: its insertions arrive from one side only.
    const float2 sum = {numerator[a].x + numerator[b].x, numerator[a].y - numerator[b].y};
    const float total = weight[a] + weight[b];
    numerator[a] = sum;
    numerator[b] = {sum.x, -sum.y};
    weight[a] = weight[b] = total;
}

// Add a turned copy, by trilinear interpolation: a thread for each voxel.
extern "C" __global__ void add_rotated(const float2* source, const float* source_weight, const double* matrix,
                                       double reach, int limit, float2* numerator, float* weight)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel v = voxel(i, limit, limit + 1);
    const double x0 = v.x, y0 = v.y, z0 = v.z;
    if (!v.inside || x0 * x0 + y0 * y0 + z0 * z0 > reach * reach)
        return;
    double x = matrix[0] * x0 + matrix[1] * y0 + matrix[2] * z0;
    double y = matrix[3] * x0 + matrix[4] * y0 + matrix[5] * z0;
    double z = matrix[6] * x0 + matrix[7] * y0 + matrix[8] * z0;
    const bool mate = x < -1e-9;
    if (mate) {
        x = -x;
        y = -y;
        z = -z;
    }
    // Operators that map the grid on itself must not blur it through rounding.
    x = (x > 0 ? x : 0) + 1e-9;
    y += limit + 1e-9;
    z += limit + 1e-9;
    const int jx = static_cast<int>(x), jy = static_cast<int>(y), jz = static_cast<int>(z);
    if (jx > limit || y < 0 || z < 0 || jy > 2 * limit || jz > 2 * limit)
        return;
    const double fx = x - jx, fy = y - jy, fz = z - jz;
    double re = 0, im = 0, total = 0;
    for (int corner = 0; corner < 8; ++corner) {
        const int dx = corner & 1, dy = corner >> 1 & 1, dz = corner >> 2;
        const int ky = jy + dy < 2 * limit ? jy + dy : 2 * limit, kz = jz + dz < 2 * limit ? jz + dz : 2 * limit;
        const double share = (dz ? fz : 1 - fz) * (dy ? fy : 1 - fy) * (dx ? fx : 1 - fx);
        const long long at = position(kz - limit, ky - limit, jx + dx, limit);
        re += share * source[at].x;
        im += share * source[at].y;
        total += share * source_weight[at];
    }
    const long long at = position(v.z, v.y, v.x, limit);
    numerator[at].x += static_cast<float>(re);
    numerator[at].y += static_cast<float>(mate ? -im : im);
    weight[at] += static_cast<float>(total);
}

__host__ __device__ inline double distance(const Voxel& v)
{
    return sqrt(static_cast<double>(v.x) * v.x + static_cast<double>(v.y) * v.y + static_cast<double>(v.z) * v.z);
}

// Sums, in whole numbers of 1 / units, and numbers of a weight volume's voxels by shell of the unpadded map: a
// thread for each voxel.
extern "C" __global__ void shell_sums(const float* weight, double units, int limit, double padding, int shells,
                                      unsigned long long* total, unsigned long long* count)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel v = voxel(i, limit, limit + 1);
    if (!v.inside)
        return;
    const int shell = static_cast<int>(distance(v) / padding + 0.5);
    if (shell < shells) {
        const double value = weight[position(v.z, v.y, v.x, limit)] * units;
        atomicAdd(total + shell, static_cast<unsigned long long>(value + 0.5));
        atomicAdd(count + shell, 1ull);
    }
}

// Numerator / max(weight + extra(shell), floor(shell)) within a reach: a thread for each voxel.
extern "C" __global__ void divide(const float2* numerator, const float* weight, const double* extra,
                                  const double* floor_, int shells, double reach, double padding, int limit,
                                  float2* result)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel v = voxel(i, limit, limit + 2);
    const double r = distance(v);
    if (!v.inside || r > reach)
        return;
    const int nearest = static_cast<int>(r / padding + 0.5), below = static_cast<int>(r / padding);
    const double least = floor_[below < shells ? below : shells - 1];
    double total = weight[i] + extra[nearest < shells ? nearest : shells - 1];
    total = total > least ? total : least;
    if (total > 0)
        result[i] = {static_cast<float>(numerator[i].x / total), static_cast<float>(numerator[i].y / total)};
}

// An index divided by the padding, rounded half away from zero.
__host__ __device__ inline int unpadded_index(int index, double padding)
{
    const int value = static_cast<int>((index < 0 ? -index : index) / padding + 0.5);
    return index < 0 ? -value : value;
}

struct Range {
    int first, last;
};

// The padded indices that are nearest to an unpadded one.
__host__ __device__ inline Range padded_indices(int index, double padding, int smallest, int largest)
{
    Range range = {static_cast<int>(index * padding - padding) - 1, static_cast<int>(index * padding + padding) + 1};
    range.first = range.first > smallest ? range.first : smallest;
    range.last = range.last < largest ? range.last : largest;
    while (range.first <= range.last && unpadded_index(range.first, padding) != index)
        ++range.first;
    while (range.first <= range.last && unpadded_index(range.last, padding) != index)
        --range.last;
    return range;
}

// Sums of data and weights over the padded voxels nearest to each unpadded one, divided: a thread for each of
// those, in an array of shape (2 half + 1, 2 half + 1, half + 1) of pairs of doubles.
extern "C" __global__ void unpadded(const float2* numerator, const float* weight, double padding, int limit, int half,
                                    double* result)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Voxel v = voxel(i, half, half + 1);
    if (!v.inside)
        return;
    const Range zs = padded_indices(v.z, padding, -limit, limit), ys = padded_indices(v.y, padding, -limit, limit);
    const Range xs = padded_indices(v.x, padding, 0, limit);
    double re = 0, im = 0, total = 0;
    for (int z = zs.first; z <= zs.last; ++z)
        for (int y = ys.first; y <= ys.last; ++y)
            for (int x = xs.first; x <= xs.last; ++x) {
                const long long at = position(z, y, x, limit);
                re += numerator[at].x;
                im += numerator[at].y;
                total += weight[at];
            }
    result[2 * i] = total > 0 ? re / total : re;
    result[2 * i + 1] = total > 0 ? im / total : im;
}
