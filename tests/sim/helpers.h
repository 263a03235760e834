// What the tests of the simulator share: running in every order and with several worker counts, and the text of an expected error.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "kernels/simt.h"
#include "tensor/parallel.h"

namespace vg::testing_sim {

#if defined(__SANITIZE_THREAD__)  // a switch takes a thousand times longer, and one worker has nothing to race with
constexpr int kWorkers[] = {3};
#else
constexpr int kWorkers[] = {1, 2, 4};
#endif

// Runs `work` in every order with several numbers of workers.
template <class Work>
void everywhere(Work&& work) {
  for (int workers : kWorkers) {
    set_threads(workers);
    sim::in_every_order([&](sim::Order order) {
      SCOPED_TRACE("workers " + std::to_string(workers) + ", order " + std::to_string(static_cast<int>(order)) + ", seed " +
                   std::to_string(sim::order_seed()));
      work();
    });
  }
  set_threads(0);
}

// The message of the Error that `work` throws; "" if it throws none.
template <class Work>
std::string error_of(Work&& work) {
  try {
    work();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    return e.what();
  }
  return "";
}

inline void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "wanted: " << part << "\nfound:  " << text;
}

}  // namespace vg::testing_sim
