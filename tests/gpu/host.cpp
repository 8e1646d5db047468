// The CUDA kernels on a processor: the language's additions that they use, and loops over blocks and threads.
#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__

struct float2 {
    float x, y;
};
struct float4 {
    float x, y, z, w;
};
struct Index {
    unsigned x;
};
static thread_local Index blockIdx, threadIdx, blockDim;

static float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static unsigned __float_as_uint(float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

template <typename T> static void atomicAdd(T* at, T value) { *at += value; }
template <typename T> static void atomicMax(T* at, T value) { *at = value > *at ? value : *at; }

// In place of warp.cuh: the first thread of a warp does the work of all its lanes.
constexpr int WARP = 32;

template <int N, typename T, typename LaneFunction> static void warp_sums(T (&sums)[N], LaneFunction lane_function)
{
    T lanes[WARP][N] = {};
    for (int lane = 0; lane < WARP; ++lane)
        lane_function(lane, lanes[lane]);
    for (int i = 0; i < N; ++i) {
        for (int step = WARP / 2; step > 0; step /= 2)
            for (int lane = 0; lane < step; ++lane)
                lanes[lane][i] += lanes[lane + step][i];
        sums[i] = lanes[0][i];
    }
}

static bool leads_warp() { return true; }
static bool joins_warp() { return threadIdx.x % WARP == 0; }

template <typename... A, std::size_t... I>
static void run(void (*kernel)(A...), unsigned blocks, unsigned threads, void** arguments, std::index_sequence<I...>)
{
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            kernel(*static_cast<A*>(arguments[I])...);
}

// The sizes of a kernel's arguments, so that a wrong list of them is found before it does harm.
template <typename... A> static int sizes(void (*)(A...), int* result)
{
    int k = 0;
    ((result[k++] = sizeof(A)), ...);
    return k;
}

template <typename... A> static void start(void (*kernel)(A...), unsigned blocks, unsigned threads, void** arguments)
{
    run(kernel, blocks, threads, arguments, std::index_sequence_for<A...>{});
}

#include "source.inc"

#define KERNEL(name)                                                                                    \
    extern "C" void run_##name(unsigned blocks, unsigned threads, void** arguments)                     \
    {                                                                                                   \
        start(name, blocks, threads, arguments);                                                        \
    }                                                                                                   \
    extern "C" int sizes_##name(int* result) { return sizes(name, result); }

#include "names.inc"
