// From scores to posterior weights: counterparts of the functions of posterior.py.
//
// Whatever is summed or compared across threads is an integer, so that the outcome does not depend on their
// order: the best sample of a particle is the largest of 64-bit keys (score, then the first position), and
// exp(-depth), which is at most 1, is counted in units of 2^-36.

constexpr float LOG_RANGE = 25.0f;
constexpr int BINS = 2500;
constexpr float VOID = -3.4e38f;  // the log-weight of what is no sample
constexpr double UNITS = 68719476736.0;  // 2^36

typedef unsigned long long Key;

// The order of floats as that of unsigned integers, and back.
__host__ __device__ inline unsigned ordered(float value)
{
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__host__ __device__ inline float value_of(Key key)
{
    const unsigned top = static_cast<unsigned>(key >> 32);
    return __uint_as_float(top & 0x80000000u ? top ^ 0x80000000u : ~top);
}

__device__ inline void offer(Key* best, float value, long long position)
{
    if (value > VOID)
        atomicMax(best, static_cast<Key>(ordered(value)) << 32 | (0xffffffffu - static_cast<unsigned>(position)));
}

// dot - norm + priors of dense scores (orientations, particles, shifts): a thread for each score.
extern "C" __global__ void add_priors(float* scores, const float* norms, const float* orientation_prior, int own,
                                      const float* shift_prior, long long samples, int particles, int shifts)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= samples)
        return;
    const long long row = i / shifts, n = row % particles;
    scores[i] += orientation_prior[own ? row : row / particles] - norms[row] + shift_prior[n * shifts + i % shifts];
}

// The same of a local search's (pairs, shift blocks, 4, 4): a thread for each (pair, block).
extern "C" __global__ void weigh_local(float* dots, const float* norms, const int* particle,
                                       const float* orientation_prior, const float* shift_prior, long long rows,
                                       int blocks, int shifts, Key* best)
{
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    const long long pair = row / blocks;
    const int first = static_cast<int>(row % blocks) * 4, n = particle[pair];
    float top = VOID;
    for (int c = 0; c < 4; ++c) {
        const float base = orientation_prior[4 * pair + c] - norms[4 * pair + c];
        for (int s = 0; s < 4; ++s) {
            float& dot = dots[16 * row + 4 * c + s];
            dot = first + s < shifts
                ? dot + base + shift_prior[static_cast<long long>(n) * shifts + first + s] : VOID;
            top = dot > top ? dot : top;
        }
    }
    offer(best + n, top, 0);
}

// The same of the fine samples (entries, 4, 4), each entry with its prior: a thread for each entry.
extern "C" __global__ void weigh_fine(float* dots, const float* norms, const int* particle, const float* prior,
                                      long long entries, Key* best)
{
    const long long e = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= entries)
        return;
    float top = VOID;
    int at = 0;
    for (int k = 0; k < 16; ++k) {
        const float value = dots[16 * e + k] - norms[4 * e + k / 4] + prior[e];
        dots[16 * e + k] = value;
        if (value > top) {
            top = value;
            at = k;
        }
    }
    offer(best + particle[e], top, 16 * e + at);
}

// The best log-weight of each particle and where it is, -1 where there is none: a thread for each particle.
extern "C" __global__ void read_best(const Key* best, int particles, float* top, long long* position)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= particles)
        return;
    top[n] = best[n] ? value_of(best[n]) : VOID;
    position[n] = best[n] ? static_cast<long long>(0xffffffffu - static_cast<unsigned>(best[n])) : -1;
}

// Histograms of exp(-depth) below each particle's best, shape (particles, BINS): a thread for each row of
// `width` values, which are particle[row]'s or, without that list, in turn the particles'.
extern "C" __global__ void histogram(const float* values, const int* particle, int listed, int particles,
                                     long long rows, int width, const float* top, Key* counts)
{
    const long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    const long long n = listed ? particle[row] : row % particles;
    for (int k = 0; k < width; ++k) {
        const float depth = top[n] - values[row * width + k];
        if (depth < LOG_RANGE) {
            const int bin = static_cast<int>(depth * (BINS / LOG_RANGE));
            atomicAdd(counts + n * BINS + (bin < BINS - 1 ? bin : BINS - 1), static_cast<Key>(UNITS * exp(-depth)));
        }
    }
}

// Distance below the best within which a fraction of the probability lies, and all of it: a thread for each
// particle.
extern "C" __global__ void thresholds(const Key* counts, int particles, double fraction, float* depth, double* total)
{
    const int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= particles)
        return;
    const Key* own = counts + static_cast<long long>(n) * BINS;
    Key sum = 0;
    for (int k = 0; k < BINS; ++k)
        sum += own[k];
    total[n] = sum / UNITS;
    const double target = fraction * sum;
    Key running = 0;
    depth[n] = LOG_RANGE;
    for (int k = 0; k < BINS; ++k) {
        running += own[k];
        if (running >= target) {
            depth[n] = static_cast<float>((k + 1) * static_cast<double>(LOG_RANGE) / BINS);
            return;
        }
    }
}

// Log-weights of the fine samples into normalised weights, 0 where they do not count: a thread for each entry.
extern "C" __global__ void posterior_weights(float* dots, const int* particle, long long entries, const float* top,
                                             const long long* position, const float* depth, const double* total, int single, Key* used)
{
    const long long e = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= entries)
        return;
    const int n = particle[e];
    Key sum = 0;
    for (int k = 0; k < 16; ++k) {
        const float below = top[n] - dots[16 * e + k];
        double weight = 0;
        if (single)
            weight = 16 * e + k == position[n] ? 1 : 0;
        else if (below <= depth[n])
            weight = exp(-below) / total[n];
        dots[16 * e + k] = static_cast<float>(weight);
        sum += static_cast<Key>(UNITS * weight);
    }
    if (sum > 0)
        atomicAdd(used + n, sum);
}
