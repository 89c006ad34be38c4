#include "graph_live.h"

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <unordered_map>

#include "graph_prune.h"
#include "rotation.h"

namespace memdb {
namespace {

constexpr size_t kInstead = 3;  // edges that take the place of one that led to a slot that goes
constexpr uint32_t kNobody = 0xffffffffu;
constexpr float kLongest = 1e15f;  // what keeps the distances of damaged records finite

float as_float(uint32_t word) {
  float number;
  std::memcpy(&number, &word, 4);
  return number;
}

// Of finite numbers; a float's exponent holds those that float16 has no leading one for.
float float_of_half(uint16_t half) {
  const float size = as_float((half & 0x7fffu) << 13) * as_float((127u + 112u) << 23);
  return half & 0x8000u ? -size : size;
}

struct Stopped {};  // thrown where the work is given up

// A row in 8 bits, and what its distances are made of: as RowShape of graph_build.h.
struct Row {
  const int8_t* numbers;
  float factor, square, extra;
};

// Rows by slot; those whose records are not numbers of 8 bits are decoded when first asked for.
class RowCache {
 public:
  RowCache(const Kernels& kernels, const LiveRequest& request)
      : kernels_(kernels), request_(request), records_(*request.records) {}

  // Of a slot within the records.
  Row row(uint32_t slot) {
    if (records_.precision == Precision::kInt8) return decoded(slot);
    const auto found = rows_.find(slot);
    if (found != rows_.end()) return found->second;
    return rows_.emplace(slot, decoded(slot)).first->second;
  }

  // Starts fetching what `row` will look at.
  void ahead(uint32_t slot) const {
    const uint8_t* record = records_.first + static_cast<uint64_t>(slot) * records_.size;
    for (size_t at = 0; at < records_.size; at += 64) prefetch(record + at);
  }

 private:
  Row decoded(uint32_t slot) {
    const uint8_t* record = records_.first + slot * records_.size;
    const uint8_t* payload = record + kRecordHead;
    float scale, norm;
    std::memcpy(&scale, record + 4, 4);
    std::memcpy(&norm, record + 8, 4);
    if (records_.precision == Precision::kInt8)
      return shaped(reinterpret_cast<const int8_t*>(payload), scale, norm);
    held_.emplace_back((records_.dim + 7) / 8 * 8);
    int8_t* numbers = held_.back().data();
    if (records_.precision == Precision::kFloat16) {
      whole_.resize(records_.dim);
      for (uint32_t i = 0; i < records_.dim; ++i) {
        uint16_t half;
        std::memcpy(&half, payload + 2 * static_cast<size_t>(i), 2);
        whole_[i] = float_of_half(half);
      }
      rotate(whole_.data(), request_.signs, records_.dim);
      scale *= quantise8(whole_.data(), records_.dim, numbers);
    } else {  // the scale of a packed record is made for products: lengths give the nearest one
      unpack(payload, records_.dim, records_.precision, numbers);
      const float square = static_cast<float>(kernels_.dot88(numbers, numbers, records_.dim));
      scale = square > 0.0f ? norm / std::sqrt(square) : 0.0f;
    }
    return shaped(numbers, scale, norm);
  }

  Row shaped(const int8_t* numbers, float scale, float norm) const {
    Row row = {numbers, scale, norm * norm, 0.0f};
    if (records_.metric == Metric::kCosine) row = {numbers, scale / norm, 1.0f, 0.0f};
    if (!std::isfinite(row.factor) || !std::isfinite(row.square)) row = {numbers, 0, 0, 0};
    row.factor = std::min(std::max(row.factor, -kLongest), kLongest);
    row.square = std::min(row.square, kLongest * kLongest);
    if (records_.metric == Metric::kInnerProduct && row.square < request_.longest) {
      row.extra = std::sqrt(request_.longest - row.square);
      row.square = request_.longest;
    }
    return row;
  }

  const Kernels& kernels_;
  const LiveRequest& request_;
  const Records& records_;
  std::unordered_map<uint32_t, Row> rows_;
  std::vector<std::vector<int8_t>> held_;
  std::vector<float> whole_;
};

// The graph with the lists of one request before those of the pages.
class Change {
 public:
  Change(const Kernels& kernels, const LiveRequest& request, ChangedLists out)
      : kernels_(kernels),
        request_(request),
        graph_(*request.graph),
        estimator_(kernels, *request.codes),
        rows_(kernels, request),
        out_(out) {}

  void link(uint32_t slot) {
    find_near(slot);
    gather(slot, near_);
    prune(slot);
    put(slot, chosen_);
    const std::vector<uint32_t> named = chosen_;
    for (const uint32_t other : named) {
      list_ = list_of(other);
      if (std::find(list_.begin(), list_.end(), slot) != list_.end()) continue;
      list_.push_back(slot);
      set_list(other);
    }
  }

  void unlink(uint32_t slot) {
    find_near(slot);
    // What may take its place: its neighbours, and what lies nearest.
    std::vector<uint32_t> instead = list_of(slot);
    instead.insert(instead.end(), near_.begin(),
                   near_.begin() + static_cast<std::ptrdiff_t>(
                                       std::min<size_t>(near_.size(), graph_.degree)));
    std::sort(instead.begin(), instead.end());
    instead.erase(std::unique(instead.begin(), instead.end()), instead.end());
    const auto gone = [&](uint32_t one) { return one == slot || !stays(one); };
    instead.erase(std::remove_if(instead.begin(), instead.end(), gone), instead.end());
    const std::vector<uint32_t> near = near_;
    for (const uint32_t other : near) {
      if (leaves(other)) continue;
      list_ = list_of(other);
      const auto at = std::find(list_.begin(), list_.end(), slot);
      if (at == list_.end()) continue;
      list_.erase(at);
      pool_.clear();
      for (const uint32_t one : instead)
        if (one != other && std::find(list_.begin(), list_.end(), one) == list_.end())
          pool_.push_back({distance(other, one), one});
      std::sort(pool_.begin(), pool_.end());
      for (size_t i = 0; i < std::min(kInstead, pool_.size()); ++i)
        list_.push_back(pool_[i].slot);
      set_list(other);
    }
  }

  void leave(const uint32_t* slots, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) leaving_.emplace(slots[i], true);
  }

  // Cuts lists that are too long to what a record has room for, and fills the output.
  uint64_t written() {
    const uint32_t degree = graph_.degree;
    for (const uint32_t slot : order_)
      if (lists_.at(slot).size() > degree) {
        list_ = lists_.at(slot);
        cut(slot);
      }
    if (order_.size() > out_.room) throw std::length_error("changed: more lists than room");
    for (size_t i = 0; i < order_.size(); ++i) {
      const std::vector<uint32_t>& list = lists_.at(order_[i]);
      uint32_t* row = out_.lists + i * (degree + 1);
      out_.slots[i] = order_[i];
      row[0] = static_cast<uint32_t>(list.size());
      std::copy(list.begin(), list.end(), row + 1);
      std::fill(row + 1 + list.size(), row + 1 + degree, 0u);
    }
    return order_.size();
  }

 private:
  bool leaves(uint32_t slot) const { return leaving_.find(slot) != leaving_.end(); }

  bool is_inside(uint32_t slot) const {
    return slot < request_.records->count && slot < request_.codes->count &&
           (lists_.find(slot) != lists_.end() || graph_.record(kernels_, slot) != nullptr);
  }

  // Whether an edge may lead there: linked, and not about to go.
  bool stays(uint32_t slot) const { return is_inside(slot) && !leaves(slot); }

  uint32_t read(uint32_t slot, uint32_t* named) const {
    const auto found = lists_.find(slot);
    if (found == lists_.end()) return graph_.neighbours(kernels_, slot, named);
    std::copy(found->second.begin(), found->second.end(), named);
    return static_cast<uint32_t>(found->second.size());
  }

  std::vector<uint32_t> list_of(uint32_t slot) const {
    uint32_t named[kMostDegree];
    const uint32_t degree = read(slot, named);
    return {named, named + degree};
  }

  void put(uint32_t slot, const std::vector<uint32_t>& list) {
    if (lists_.find(slot) == lists_.end()) order_.push_back(slot);
    lists_[slot] = list;
  }

  // list_ becomes the list of `slot`, pruned where it is a third too long: slots of one request lie
  // near each other, so most lists that one makes too long would be again by the next.
  void set_list(uint32_t slot) {
    const auto gone = [&](uint32_t one) { return one == slot || !stays(one); };
    list_.erase(std::remove_if(list_.begin(), list_.end(), gone), list_.end());
    const uint32_t spare = std::min(graph_.degree / 3, kMostDegree - graph_.degree);
    if (list_.size() <= graph_.degree + spare) return put(slot, list_);
    cut(slot);
  }

  // The list of `slot` becomes what a prune leaves of list_.
  void cut(uint32_t slot) {
    gather(slot, list_);
    prune(slot);
    put(slot, chosen_);
  }

  // pool_ becomes these slots by their distances from `slot`.
  void gather(uint32_t slot, const std::vector<uint32_t>& slots) {
    for (const uint32_t one : slots) rows_.ahead(one);
    pool_.clear();
    const Row from = rows_.row(slot);
    for (const uint32_t one : slots) pool_.push_back({between(from, rows_.row(one)), one});
    settle(pool_);
  }

  float distance(uint32_t a, uint32_t b) { return between(rows_.row(a), rows_.row(b)); }

  float between(const Row& left, const Row& right) const {
    const float product =
        static_cast<float>(kernels_.dot88(left.numbers, right.numbers, request_.records->dim));
    const float square = (left.square + right.square) -
                         2.0f * (left.factor * right.factor * product + left.extra * right.extra);
    return square > 0.0f ? square : 0.0f;
  }

  // chosen_ becomes what is kept of pool_, each of whose rows is shaped once.
  void prune(uint32_t slot) {
    shapes_.clear();
    numbered_.clear();
    for (const Candidate& one : pool_) {
      if (one.slot != slot)
        numbered_.push_back({one.key, static_cast<uint32_t>(shapes_.size())});
      shapes_.push_back(rows_.row(one.slot));
    }
    const auto apart = [&](uint32_t a, uint32_t b) { return between(shapes_[a], shapes_[b]); };
    robust_prune(numbered_, kNobody, graph_.degree, request_.alpha, apart, chosen_);
    for (uint32_t& one : chosen_) one = pool_[one].slot;
  }

  // near_ becomes what stays of what a walk finds near `slot`, ascending, and its neighbours.
  void find_near(uint32_t slot) {
    const Row row = rows_.row(slot);
    residual_.resize(request_.records->dim);
    for (uint32_t i = 0; i < request_.records->dim; ++i)
      residual_[i] = row.factor * static_cast<float>(row.numbers[i]) - request_.centre[i];
    estimator_.prepare(residual_.data());
    const auto neighbours = [&](uint32_t at, uint32_t* named) {
      if (request_.stop != nullptr && request_.stop->load(std::memory_order_relaxed))
        throw Stopped();
      return read(at, named);
    };
    const auto usable = [&](uint32_t at) {
      return estimator_.factors(request_.codes->row(at)) != 0 || is_inside(at);
    };
    const auto ahead = [&](uint32_t at) { graph_.ahead(at); };
    walk(estimator_, neighbours, usable, ahead, request_.entries, request_.breadth, scratch_);
    near_.clear();
    for (const Candidate& one : scratch_.frontier.found())
      if (one.slot != slot && stays(one.slot)) near_.push_back(one.slot);
    for (const uint32_t one : list_of(slot))
      if (one != slot && stays(one) && std::find(near_.begin(), near_.end(), one) == near_.end())
        near_.push_back(one);
  }

  const Kernels& kernels_;
  const LiveRequest& request_;
  const GraphPages& graph_;
  Estimator estimator_;
  RowCache rows_;
  ChangedLists out_;
  WalkScratch scratch_;
  std::unordered_map<uint32_t, std::vector<uint32_t>> lists_;
  std::unordered_map<uint32_t, bool> leaving_;
  std::vector<uint32_t> order_;  // the lists that changed, in the order they first did
  std::vector<float> residual_;
  std::vector<uint32_t> near_, list_, chosen_;
  std::vector<Candidate> pool_, numbered_;
  std::vector<Row> shapes_;
};

}  // namespace

uint64_t most_changed(uint32_t degree, uint32_t breadth) { return 1ULL + degree + breadth; }

uint64_t link_in_place(const Kernels& kernels, const LiveRequest& request, ChangedLists changed) {
  Change change(kernels, request, changed);
  for (uint64_t i = 0; i < request.slot_count; ++i) change.link(request.slots[i]);
  return change.written();
}

uint64_t unlink_in_place(const Kernels& kernels, const LiveRequest& request,
                         ChangedLists changed) {
  Change change(kernels, request, changed);
  change.leave(request.slots, request.slot_count);
  for (uint64_t i = 0; i < request.slot_count; ++i) change.unlink(request.slots[i]);
  return change.written();
}

bool when_idle(const LiveRequest& request, uint32_t patience_ms,
               const std::function<uint64_t(const LiveRequest&)>& work, uint64_t& changed) {
#if defined(__linux__)
  std::atomic<bool> stop{false};
  std::mutex guard;
  std::condition_variable ended;
  std::exception_ptr failure;
  bool done = false, whole = false;
  LiveRequest mine = request;
  mine.stop = &stop;
  std::thread helper([&]() {
    const sched_param none = {};
    pthread_setschedparam(pthread_self(), SCHED_IDLE, &none);  // else it is a thread like others
    try {
      changed = work(mine);
      whole = true;
    } catch (const Stopped&) {
    } catch (...) {  // no memory: told by the thread that waits
      failure = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(guard);
    done = true;
    ended.notify_one();
  });
  {
    std::unique_lock<std::mutex> lock(guard);
    const auto patience = std::chrono::milliseconds(patience_ms);
    if (!ended.wait_for(lock, patience, [&]() { return done; })) stop = true;
  }
  helper.join();
  if (failure) std::rethrow_exception(failure);
  return whole;
#else
  (void)request, (void)patience_ms, (void)work, (void)changed;
  return false;
#endif
}

uint64_t pages_with(const Kernels& kernels, const GraphPages& graph, const uint32_t* slots,
                    const uint32_t* places, const uint32_t* lists, uint64_t count,
                    uint32_t* numbers, uint8_t* pages) {
  std::unordered_map<uint32_t, uint64_t> at_of;
  const uint32_t size = graph_record_bytes(graph.degree);
  for (uint64_t i = 0; i < count; ++i) {
    const uint32_t number = places[i] >> 8, at = places[i] & 0xff;
    const auto [found, fresh] = at_of.emplace(number, at_of.size());
    uint8_t* page = pages + found->second * kPageBytes;
    if (fresh) {
      numbers[found->second] = number;
      const uint8_t* stored = graph.first + static_cast<uint64_t>(number) * kPageBytes;
      if (page_is_sound(kernels, stored, number))
        std::memcpy(page, stored, kPageBytes);
      else
        std::memset(page, 0, kPageBytes);
      std::memcpy(page + 4, &number, 4);
    }
    uint8_t* record = page + kPageHead + static_cast<size_t>(at) * size;
    std::memset(record, 0, size);
    const uint32_t* list = lists + i * (graph.degree + 1);
    if (list[0] == kErased) continue;
    const uint32_t degree = std::min(list[0], graph.degree);
    const uint32_t head = slots[i] | degree << kSlotBits;
    std::memcpy(record, &head, 4);
    for (uint32_t j = 0; j < degree; ++j) std::memcpy(record + 4 + 3 * j, list + 1 + j, 3);
  }
  for (uint64_t i = 0; i < at_of.size(); ++i) {
    uint8_t* page = pages + i * kPageBytes;
    const uint32_t crc = kernels.crc32c(page + 4, kPageBytes - 4);
    std::memcpy(page, &crc, 4);
  }
  return at_of.size();
}

void mark_led_to(const Kernels& kernels, const GraphPages& graph, const Entries& entries,
                 uint8_t* reached) {
  std::vector<uint32_t> open;
  const auto reach = [&](uint32_t slot) {
    if (slot >= graph.place_count || reached[slot]) return;
    reached[slot] = 1;
    open.push_back(slot);
  };
  for (uint32_t i = 0; i < entries.count; ++i) reach(entries.slots[i]);
  uint32_t named[kMostDegree];
  while (!open.empty()) {
    const uint32_t here = open.back();
    open.pop_back();
    const uint32_t degree = graph.neighbours(kernels, here, named);
    for (uint32_t i = 0; i < degree; ++i) reach(named[i]);
  }
}

}  // namespace memdb
