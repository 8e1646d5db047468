// Images made ready: counterparts of whole_pixels.py and of ctf/kernels.py.

// Move each image's content by whole pixels (x, y); uncovered pixels become 0. A thread for each pixel.
extern "C" __global__ void shift_whole_pixels(const float* images, const int* shifts, int box, long long pixels,
                                              float* moved)
{
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pixels)
        return;
    const long long n = i / box / box, y = i / box % box - shifts[2 * n + 1], x = i % box - shifts[2 * n];
    moved[i] = x >= 0 && x < box && y >= 0 && y < box ? images[(n * box + y) * box + x] : 0.0f;
}

// The CTF.

// At a frequency in 1/A: -sin(gamma), damped and scaled. Coefficients are of x^2, xy, y^2, u^4 and 1.
__host__ __device__ inline float contrast_transfer(const double (&coefficients)[5], double x, double y, double even,
                                                   double b_factor, double dose, double scale, int intact_first_peak,
                                                   int absolute)
{
    const double u2 = x * x + y * y;
    const double gamma = coefficients[0] * x * x + coefficients[1] * x * y + coefficients[2] * y * y
        + coefficients[3] * u2 * u2 + coefficients[4] + even;
    // gamma runs to thousands of radians: whole half turns are taken off in double precision.
    const double pi = 3.14159265358979323846;
    const double turns = floor(gamma / pi + 0.5);
    const float sine = sinf(static_cast<float>(gamma - turns * pi));
    float value = turns - 2 * floor(turns / 2) == 0 ? -sine : sine;
    if (intact_first_peak && fabs(gamma) < pi / 2)
        value = 1;
    if (b_factor != 0)
        value *= static_cast<float>(exp(-b_factor / 4 * u2));
    if (dose != 0) {
        // What the dose leaves: Grant & Grigorieff (2015), eLife 4:e06980, as dose_weight of ctf.py.
        const double power = pow(u2, 1.665 / 2);
        value *= static_cast<float>(exp(-0.5 * dose * power / (0.245 + 2.81 * power)));
    }
    if (absolute)
        value = fabsf(value);
    value *= static_cast<float>(scale);
    const float smallest = 1e-8f;
    return fabsf(value) < smallest ? (value < 0 ? -smallest : smallest) : value;
}

// A thread for each pixel of each image. `columns` holds, of each image, the five coefficients, the B-factor,
// the dose and the scale, shape (8, images); `even` has no row, one or one for each image.
extern "C" __global__ void evaluate_ctf(const double* columns, const double* x, const double* y, const double* even,
                                        int even_rows, int images, int pixels, int intact_first_peak, int absolute,
                                        float* result)
{
    const int tiles = (pixels + blockDim.x - 1) / blockDim.x;
    const long long n = blockIdx.x / tiles;
    const int p = blockIdx.x % tiles * blockDim.x + threadIdx.x;
    if (p >= pixels)
        return;
    double of_image[8];
    for (int k = 0; k < 8; ++k)
        of_image[k] = columns[static_cast<long long>(k) * images + n];
    const double coefficients[5] = {of_image[0], of_image[1], of_image[2], of_image[3], of_image[4]};
    const double extra = even_rows == 0 ? 0 : even[(even_rows > 1 ? n * pixels : 0) + p];
    result[n * pixels + p] = contrast_transfer(coefficients, x[p], y[p], extra, of_image[5], of_image[6], of_image[7],
                                               intact_first_peak, absolute);
}
