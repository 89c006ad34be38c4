// Records that are read and not mapped: those of a search's list in one batch, and listed ones.
#pragma once
#include <cstdint>
#include <vector>

#include "graph_read.h"
#include "graph_refine.h"

namespace memdb {

// `refine` with one batch of reads: of what may be among the k nearest, judged by the estimates
// alone. Another follows where these were wrong, so that the same are scored in the end.
int64_t refine_read(const Kernels& kernels, const Records& records, const Estimator& estimator,
                    const Prepared& prepared, const std::vector<Candidate>& list, uint32_t k,
                    const ReadSources& sources, Scratch& scratch, uint64_t& scored);

}  // namespace memdb
