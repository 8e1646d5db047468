// Slices, insertion, scores and weighted sums: counterparts of the functions of kernels.py, which say what
// each array is. Every loop over pixels or entries has a run-time length: nothing is compiled again when the
// image size grows.

// Where a pixel lies in a Fourier volume of shape (2 limit + 1, 2 limit + 1, limit + 2).
struct Place {
    long long index;   // of the corner with the smallest indices
    float fx, fy, fz;  // way to the next one
    bool mate;         // whether it is the Friedel mate that lies there
};

__host__ __device__ inline Place place_of(const float* matrix, float kx, float ky, float kz, float padding,
                                          int limit)
{
    float x = kx * (matrix[0] * padding) + ky * (matrix[3] * padding) + kz * (matrix[6] * padding);
    float y = kx * (matrix[1] * padding) + ky * (matrix[4] * padding) + kz * (matrix[7] * padding);
    float z = kx * (matrix[2] * padding) + ky * (matrix[5] * padding) + kz * (matrix[8] * padding);
    Place place;
    place.mate = x < 0;
    const float sign = place.mate ? -1.0f : 1.0f;
    x *= sign;
    y = y * sign + limit;
    z = z * sign + limit;
    const int ix = static_cast<int>(x), iy = static_cast<int>(y), iz = static_cast<int>(z);
    place.fx = x - ix;
    place.fy = y - iy;
    place.fz = z - iz;
    const long long edge = 2 * limit + 1;
    place.index = (iz * edge + iy) * (limit + 2) + ix;
    return place;
}

__host__ __device__ inline float2 between(float2 a, float2 b, float f)
{
    return {a.x + f * (b.x - a.x), a.y + f * (b.y - a.y)};
}

// Trilinear interpolation, y first, then z, then x, in the order of the processor's kernel.
__host__ __device__ inline float2 interpolate(const float2* volume, const Place& place, int limit)
{
    const long long row = limit + 2, layer = row * (2 * limit + 1);
    const float2* p = volume + place.index;
    const float2 a = between(p[0], p[row], place.fy), b = between(p[1], p[row + 1], place.fy);
    const float2 c = between(p[layer], p[layer + row], place.fy);
    const float2 d = between(p[layer + 1], p[layer + row + 1], place.fy);
    float2 value = between(between(a, c, place.fz), between(b, d, place.fz), place.fx);
    if (place.mate)
        value.y = -value.y;
    return value;
}

// A thread for each pixel of each orientation; blocks are counted tile by tile of each orientation.
extern "C" __global__ void slice_volume(const float2* volume, int limit, const float* matrices, const float* kx,
                                        const float* ky, const float* kz, int deep, int pixels, float padding,
                                        float* out_re, float* out_im)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long o = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    const Place place = place_of(matrices + 9 * o, kx[p], ky[p], deep ? kz[p] : 0.0f, padding, limit);
    const float2 value = interpolate(volume, place, limit);
    out_re[o * pixels + p] = value.x;
    out_im[o * pixels + p] = value.y;
}

// A sum in whole numbers of 1 / units, so that it does not depend on the order of the terms.
__device__ inline void add_units(long long* sum, float value, double units)
{
    // Two's complement: unsigned addition adds negative numbers, too.
    atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(llrint(value * units)));
}

// Adds to sums of shape (..., 3): real and imaginary part, and weight, in units that may differ.
extern "C" __global__ void insert_slices(long long* sums, double units, double weight_units, int limit,
                                         const float* matrices, const float* kx, const float* ky, const float* kz,
                                         int deep, int pixels, float padding, const float* re, const float* im,
                                         const float* w)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long o = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    const float wp = w[o * pixels + p];
    if (wp == 0)
        return;
    const Place place = place_of(matrices + 9 * o, kx[p], ky[p], deep ? kz[p] : 0.0f, padding, limit);
    const float x = re[o * pixels + p];
    const float y = place.mate ? -im[o * pixels + p] : im[o * pixels + p];
    const long long row = limit + 2, layer = row * (2 * limit + 1);
    for (int corner = 0; corner < 8; ++corner) {
        const int dx = corner & 1, dy = corner >> 1 & 1, dz = corner >> 2;
        const float share = (dz ? place.fz : 1 - place.fz) * (dy ? place.fy : 1 - place.fy)
            * (dx ? place.fx : 1 - place.fx);
        long long* at = sums + 3 * (place.index + dz * layer + dy * row + dx);
        add_units(at, share * x, units);
        add_units(at + 1, share * y, units);
        add_units(at + 2, share * wp, weight_units);
    }
}

extern "C" __global__ void read_sums(const long long* sums, double units, double weight_units, long long voxels,
                                     float2* numerator, float* weight)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= voxels)
        return;
    numerator[i] = {static_cast<float>(sums[3 * i] / units), static_cast<float>(sums[3 * i + 1] / units)};
    weight[i] = static_cast<float>(sums[3 * i + 2] / weight_units);
}

// What one pixel adds to the 16 dots of (four slices) x (four shifts), and to the four norms after them.
__host__ __device__ inline void add_pixel(const float (&vr)[4], const float (&vi)[4], float ar, float ai, float b,
                                          const float (&tr)[4], const float (&ti)[4], float (&sums)[20])
{
    for (int s = 0; s < 4; ++s) {
        const float x = ar * tr[s] - ai * ti[s], y = ar * ti[s] + ai * tr[s];
        for (int c = 0; c < 4; ++c)
            sums[4 * c + s] += vr[c] * x + vi[c] * y;
    }
    for (int c = 0; c < 4; ++c)
        sums[16 + c] += b * (vr[c] * vr[c] + vi[c] * vi[c]);
}

// A warp for each entry: its lanes stride over the pixels with twenty sums in registers. Entries of one block
// stand side by side, so that the warps of a thread block read the same four slices.
extern "C" __global__ void score_entries(const float* v_re, const float* v_im, const float* a_re, const float* a_im,
                                         const float* b, const float* t_re, const float* t_im, int pixels,
                                         const int* rows, const int* block, const int* image, const int* shift,
                                         int entries, float* dots, float* norms)
{
    const long long e = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (e >= entries || !joins_warp())
        return;
    const int* four = rows + 4LL * block[e];
    const long long n = static_cast<long long>(image[e]) * pixels, t = 4LL * shift[e] * pixels;
    float sums[20] = {};
    warp_sums(sums, [&](int lane, float(&own)[20]) {
        for (int p = lane; p < pixels; p += WARP) {
            float vr[4], vi[4], tr[4], ti[4];
            for (int c = 0; c < 4; ++c) {
                vr[c] = v_re[static_cast<long long>(four[c]) * pixels + p];
                vi[c] = v_im[static_cast<long long>(four[c]) * pixels + p];
                tr[c] = t_re[t + static_cast<long long>(c) * pixels + p];
                ti[c] = t_im[t + static_cast<long long>(c) * pixels + p];
            }
            add_pixel(vr, vi, a_re[n + p], a_im[n + p], b[n + p], tr, ti, own);
        }
    });
    if (!leads_warp())
        return;
    for (int k = 0; k < 16; ++k)
        dots[16 * e + k] += sums[k];
    for (int c = 0; c < 4; ++c)
        norms[4 * e + c] += sums[16 + c];
}

// Weighted sum of an entry's four phases for each of its four slices, added to the phases and masses.
__host__ __device__ inline void add_phases(const float* weights, const float* t_re, const float* t_im, int pixels,
                                           float (&re)[4], float (&im)[4], float (&mass)[4])
{
    for (int s = 0; s < 4; ++s) {
        const float tr = t_re[static_cast<long long>(s) * pixels], ti = t_im[static_cast<long long>(s) * pixels];
        for (int c = 0; c < 4; ++c) {
            re[c] += weights[4 * c + s] * tr;
            im[c] += weights[4 * c + s] * ti;
            mass[c] += weights[4 * c + s];
        }
    }
}

// Weighted images for each slice. A thread for each pixel of each block of four slices: it goes through the
// block's entries, start[block] .. start[block + 1] - 1, so that nothing has to be added atomically.
extern "C" __global__ void sum_images(const float* y_re, const float* y_im, const float* y_weight, const float* t_re,
                                      const float* t_im, int pixels, const int* start, const int* image,
                                      const int* shift, const float* weights, float* sum_re, float* sum_im,
                                      float* sum_weight)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long block = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    float sr[4] = {}, si[4] = {}, sw[4] = {};
    int e = start[block];
    while (e < start[block + 1]) {
        const int n = image[e];
        float pr[4] = {}, pi[4] = {}, mass[4] = {};
        for (; e < start[block + 1] && image[e] == n; ++e) {
            const long long t = 4LL * shift[e] * pixels + p;
            add_phases(weights + 16LL * e, t_re + t, t_im + t, pixels, pr, pi, mass);
        }
        const long long at = static_cast<long long>(n) * pixels + p;
        const float yr = y_re[at], yi = y_im[at], yw = y_weight[at];
        for (int c = 0; c < 4; ++c) {
            sr[c] += yr * pr[c] - yi * pi[c];
            si[c] += yr * pi[c] + yi * pr[c];
            sw[c] += mass[c] * yw;
        }
    }
    for (int c = 0; c < 4; ++c) {
        const long long at = (4 * block + c) * pixels + p;
        sum_re[at] += sr[c];
        sum_im[at] += si[c];
        sum_weight[at] += sw[c];
    }
}

// Cross terms of image and model, and the model's power, pixel by pixel. A thread for each pixel of each
// image: it goes through the image's entries, which `order` lists by block from start[image] on.
extern "C" __global__ void sum_models(const float* v_re, const float* v_im, const float* x_re, const float* x_im,
                                      const float* model_ctf, const float* t_re, const float* t_im, int pixels,
                                      const int* start, const int* order, const int* block, const int* shift,
                                      const float* weights, float* cross, float* power)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long n = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    // Re(conj(c V) X P), summed over slices V and their weighted phases P, is c Re(X sum conj(V) P).
    float ar = 0, ai = 0, square = 0;
    int k = start[n];
    while (k < start[n + 1]) {
        const int b = block[order[k]];
        float pr[4] = {}, pi[4] = {}, mass[4] = {};
        for (; k < start[n + 1] && block[order[k]] == b; ++k) {
            const long long e = order[k], t = 4LL * shift[e] * pixels + p;
            add_phases(weights + 16 * e, t_re + t, t_im + t, pixels, pr, pi, mass);
        }
        for (int c = 0; c < 4; ++c) {
            const long long at = (4LL * b + c) * pixels + p;
            const float vr = v_re[at], vi = v_im[at];
            ar += vr * pr[c] + vi * pi[c];
            ai += vr * pi[c] - vi * pr[c];
            square += mass[c] * (vr * vr + vi * vi);
        }
    }
    const long long at = n * pixels + p;
    cross[at] = model_ctf[at] * (x_re[at] * ar - x_im[at] * ai);
    power[at] = model_ctf[at] * model_ctf[at] * square;
}

// Sums of rows of pixels by shell, added in double precision; shell s holds pixels order[start[s]] and on.
// A warp for each shell of each row.
extern "C" __global__ void sum_by_shell(const float* values, int rows, int pixels, const int* start, const int* order,
                                        int shells, double* sums)
{
    const long long unit = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (unit >= static_cast<long long>(rows) * shells || !joins_warp())
        return;
    const int s = static_cast<int>(unit % shells);
    const float* row = values + unit / shells * pixels;
    double total[1] = {};
    warp_sums(total, [&](int lane, double(&own)[1]) {
        for (int k = start[s] + lane; k < start[s + 1]; k += WARP)
            own[0] += row[order[k]];
    });
    if (leads_warp())
        sums[unit] += total[0];
}
