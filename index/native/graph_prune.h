// Vamana's robust prune: what building in memory and linking in place share.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "search.h"

namespace memdb {

// Ascending, each slot once.
inline void settle(std::vector<Candidate>& pool) {
  std::sort(pool.begin(), pool.end());
  const auto same = [](const Candidate& a, const Candidate& b) { return a.slot == b.slot; };
  pool.erase(std::unique(pool.begin(), pool.end(), same), pool.end());
}

// `chosen` becomes up to `degree` of an ascending pool: the nearest first; one is left out where a
// chosen one is nearer to it, by the factor alpha, than `slot` is.
template <class Distance>
void robust_prune(const std::vector<Candidate>& pool, uint32_t slot, uint32_t degree, float alpha,
                  const Distance& distance, std::vector<uint32_t>& chosen) {
  chosen.clear();
  for (const Candidate& one : pool) {
    if (chosen.size() == degree) break;
    if (one.slot == slot) continue;
    bool led_to = false;
    for (const uint32_t other : chosen) {
      led_to = alpha * distance(other, one.slot) <= one.key;
      if (led_to) break;
    }
    if (!led_to) chosen.push_back(one.slot);
  }
}

}  // namespace memdb
