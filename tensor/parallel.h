// Threads for the cpu device and for readers. One function, two backends (oneTBB; std::thread under the thread sanitizer, which does not
// understand TBB). Chunks depend on `count` and `grain` alone, never on the number of threads: that is what makes results repeatable.
#pragma once
#include <cstdint>
#include <functional>

namespace vg {

// How many threads parallel_for may use in this process; 0 = one per hardware thread (respecting the affinity mask). Call before work starts.
void set_threads(int threads);
int threads();

// Calls body(begin, end) for consecutive chunks of [0, count), each of `grain` items (the last may be shorter), in any order, in parallel.
// The first exception thrown by a body is rethrown here after all chunks have stopped.
void parallel_for(std::int64_t count, std::int64_t grain, const std::function<void(std::int64_t begin, std::int64_t end)>& body);

// The same with the number of the worker that runs the chunk, 0 .. threads()-1, for per-thread scratch.
void parallel_for_worker(std::int64_t count, std::int64_t grain, const std::function<void(int worker, std::int64_t begin, std::int64_t end)>& body);

}  // namespace vg
