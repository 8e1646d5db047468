// What a warp of 32 threads does together. The tests put a stand-in for this file's contents (loops over
// the lanes) in its place and compile everything else for the processor.

constexpr int WARP = 32;

// Sum what each lane's function adds to its N sums; lane 0 has the totals.
template <int N, typename T, typename LaneFunction>
__device__ inline void warp_sums(T (&sums)[N], LaneFunction lane_function)
{
    lane_function(static_cast<int>(threadIdx.x) % WARP, sums);
    for (int i = 0; i < N; ++i)
        for (int step = WARP / 2; step > 0; step /= 2)
            sums[i] += __shfl_down_sync(0xffffffffu, sums[i], step);
}

__device__ inline bool leads_warp() { return threadIdx.x % WARP == 0; }

// Whether a thread takes part in the warp's work; on a GPU all do.
__device__ inline bool joins_warp() { return true; }
