/* Writes noise/torch_cuda.json: the normals that PyTorch's CUDA generator hands out, with NVIDIA's cuRAND header doing the
 * arithmetic on the host (its host path: sinf and cosf, where a GPU uses faster ones that differ in the last bits) and
 * PyTorch's launch acted out thread by thread.
 *
 * nvcc -o make_cuda_normals make_cuda_normals.cu && ./make_cuda_normals > noise/torch_cuda.json      (CUDA 13.0) */
#define QUALIFIERS static __host__ __device__ __forceinline__
#include <curand_kernel.h>

#include <cstdio>
#include <vector>

struct noise_case {
    unsigned long long seed;
    int channels, rows, cols; /* of the latent */
    int sms, threads_per_sm;
    int stride; /* every how many elements are printed */
};

/* Grid-stride loop, four elements a turn, a grid apart. */
static std::vector<float> launch(const noise_case &c)
{
    const size_t n = (size_t)c.channels * c.rows * c.cols;
    size_t grid = (size_t)c.sms * (c.threads_per_sm / 256);
    if ((n + 255) / 256 < grid) grid = (n + 255) / 256;
    const size_t threads = grid * 256;
    const size_t rounded = ((n - 1) / (threads * 4) + 1) * threads * 4;
    std::vector<float> out(n);
    for (size_t thread = 0; thread < threads; thread++) {
        curandStatePhilox4_32_10_t state;
        curand_init(c.seed, thread, 0, &state);
        for (size_t first = thread; first < rounded; first += threads * 4) {
            const float4 four = curand_normal4(&state);
            const float values[4] = {four.x, four.y, four.z, four.w};
            for (size_t lane = 0; lane < 4; lane++)
                if (first + lane * threads < n) out[first + lane * threads] = values[lane];
        }
    }
    return out;
}

int main()
{
    const noise_case cases[] = {
        {0, 16, 4, 6, 132, 2048, 1},           {42, 16, 4, 6, 132, 2048, 1},
        {1099511627783ULL, 16, 4, 6, 82, 1536, 1}, {~0ULL, 1, 2, 2, 132, 2048, 1},
        {7, 16, 24, 24, 1, 1024, 31},          /* wraps twice: 9216 elements, 1024 threads */
        {7, 16, 24, 24, 2, 1536, 31},          /* 3072 threads */
        {42, 16, 160, 160, 132, 2048, 4999},   /* H100 SXM: past its 270336 threads */
        {42, 16, 160, 160, 108, 2048, 4999},   /* A100 */
    };
    const size_t n_cases = sizeof(cases) / sizeof(cases[0]);
    printf("{\"curand\": %d,\n\"cases\": [\n", CURAND_VERSION);
    for (size_t i = 0; i < n_cases; i++) {
        const noise_case &c = cases[i];
        const std::vector<float> values = launch(c);
        printf("{\"seed\": \"%llu\", \"shape\": [%d, %d, %d], \"sms\": %d, \"threads_per_sm\": %d, \"stride\": %d, "
               "\"values\": [",
               c.seed, c.channels, c.rows, c.cols, c.sms, c.threads_per_sm, c.stride);
        for (size_t j = 0; j < values.size(); j += c.stride) printf("%s%.9g", j ? ", " : "", values[j]);
        printf("]}%s\n", i + 1 < n_cases ? "," : "");
    }
    printf("]}\n");
    return 0;
}
