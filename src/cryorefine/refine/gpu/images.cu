// Images made ready: counterparts of shift_whole_pixels of images.py and of ctf/kernels.py.

// Move each image's content by whole pixels (x, y), and multiply it; uncovered pixels become 0.
extern "C" __global__ void shift_whole_pixels(const float* images, const float* gain, const int* shifts, int box,
                                              long long pixels, float* moved)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pixels)
        return;
    const long long n = i / box / box;
    const int y = static_cast<int>(i / box % box) - shifts[2 * n + 1], x = static_cast<int>(i % box) - shifts[2 * n];
    const bool inside = x >= 0 && x < box && y >= 0 && y < box;
    moved[i] = inside ? gain[n] * images[(n * box + y) * box + x] : 0.0f;
}

// The CTF of an image at a frequency in 1/A: -sin(gamma), damped and scaled.
__host__ __device__ inline float contrast_transfer(const double* coefficients, long long images, long long n, double x,
                                                   double y, double even, float damping, double scale,
                                                   int intact_first_peak, int absolute)
{
    const double u2 = x * x + y * y;
    const double gamma = coefficients[n] * x * x + coefficients[images + n] * x * y
        + coefficients[2 * images + n] * y * y + coefficients[3 * images + n] * u2 * u2 + coefficients[4 * images + n]
        + even;
    // gamma runs to thousands of radians: whole half turns are taken off in double precision.
    const double pi = 3.14159265358979323846;
    const double turns = floor(gamma / pi + 0.5);
    const float sine = sinf(static_cast<float>(gamma - turns * pi));
    float value = turns - 2 * floor(turns / 2) == 0 ? -sine : sine;
    if (intact_first_peak && fabs(gamma) < pi / 2)
        value = 1;
    value *= damping;
    if (absolute)
        value = fabsf(value);
    value *= static_cast<float>(scale);
    const float smallest = 1e-8f;
    return fabsf(value) < smallest ? (value < 0 ? -smallest : smallest) : value;
}

// `even` has 0, 1 or n rows and `damping` 0 or n: what a missing one stands for is 0 and 1.
extern "C" __global__ void evaluate_ctf(const double* coefficients, const double* scale, const double* x,
                                        const double* y, const double* even, int even_rows, const float* damping,
                                        int damping_rows, int images, int pixels, int intact_first_peak, int absolute,
                                        float* result)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long n = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    const double extra = even_rows == 0 ? 0 : even[(even_rows > 1 ? n * pixels : 0) + p];
    const float left = damping_rows == 0 ? 1 : damping[n * pixels + p];
    result[n * pixels + p] = contrast_transfer(coefficients, images, n, x[p], y[p], extra, left, scale[n],
                                               intact_first_peak, absolute);
}
