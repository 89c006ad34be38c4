#include "graph_build.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "graph_prune.h"

namespace memdb {
namespace {

constexpr uint32_t kLocks = 1u << 14;
constexpr uint64_t kSlotsAtOnce = 16;  // that a thread takes of the work

uint32_t load(const uint32_t* word) {
#if defined(__GNUC__)
  return __atomic_load_n(word, __ATOMIC_RELAXED);
#else
  return *static_cast<const volatile uint32_t*>(word);
#endif
}

void store(uint32_t* word, uint32_t value) {
#if defined(__GNUC__)
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
#else
  *static_cast<volatile uint32_t*>(word) = value;
#endif
}

class Locks {
 public:
  Locks() : flags_(kLocks) {}
  class Held {
   public:
    Held(Locks& locks, uint32_t slot) : flag_(locks.flags_[slot % kLocks].flag) {
      while (flag_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    }
    ~Held() { flag_.clear(std::memory_order_release); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    std::atomic_flag& flag_;
  };

 private:
  struct Flag {
    std::atomic_flag flag = ATOMIC_FLAG_INIT;
  };
  std::vector<Flag> flags_;
};

uint32_t read_list(const Lists& lists, uint32_t slot, uint32_t* named) {
  if (slot >= lists.count) return 0;
  const uint32_t* list = lists.list(slot);
  const uint32_t degree = std::min<uint32_t>({load(list), lists.room, kMostDegree});
  for (uint32_t i = 0; i < degree; ++i) named[i] = load(list + 1 + i);
  return degree;
}

void write_list(const Lists& lists, uint32_t slot, const std::vector<uint32_t>& chosen) {
  uint32_t* list = lists.list(slot);
  for (size_t i = 0; i < chosen.size(); ++i) store(list + 1 + i, chosen[i]);
  store(list, static_cast<uint32_t>(chosen.size()));
}

// One thread's work and what it reuses.
class Worker {
 public:
  Worker(const Kernels& kernels, const LinkRequest& request, Locks& locks)
      : kernels_(kernels),
        request_(request),
        rows_(*request.rows),
        locks_(locks),
        estimator_(kernels, *request.codes) {}

  void link(uint32_t slot) {
    find_near(slot);
    prune(slot);
    {
      const Locks::Held held(locks_, slot);
      write_list(request_.lists, slot, chosen_);
    }
    const std::vector<uint32_t> near = chosen_;
    for (const uint32_t other : near) link_back(other, slot);
  }

  void trim(uint32_t slot) {
    const Locks::Held held(locks_, slot);
    uint32_t named[kMostDegree];
    const uint32_t degree = read_list(request_.lists, slot, named);
    if (degree <= request_.degree) return;
    score(slot, named, degree);
    prune(slot);
    write_list(request_.lists, slot, chosen_);
  }

 private:
  float distance(uint32_t a, uint32_t b) const {
    const RowShape &left = rows_.shapes[a], &right = rows_.shapes[b];
    const float product = static_cast<float>(
        kernels_.dot88(rows_.numbers(a), rows_.numbers(b), rows_.dim));
    const float square = (left.square + right.square) -
                         2.0f * (left.factor * right.factor * product + left.extra * right.extra);
    return square > 0.0f ? square : 0.0f;
  }

  void fetch(uint32_t slot) const {
    const int8_t* numbers = rows_.numbers(slot);
    for (uint32_t line = 0; line < rows_.dim; line += 64) prefetch(numbers + line);
    prefetch(&rows_.shapes[slot]);
  }

  // pool_ becomes the listed slots by distance to `slot`.
  void score(uint32_t slot, const uint32_t* named, uint32_t count) {
    pool_.clear();
    for (uint32_t i = 0; i < count; ++i)
      if (named[i] != slot && named[i] < rows_.count)
        pool_.push_back({distance(slot, named[i]), named[i]});
    settle(pool_);
  }

  // pool_ becomes what a walk finds near `slot`, and the neighbours it has.
  void find_near(uint32_t slot) {
    const int8_t* numbers = rows_.numbers(slot);
    const float factor = rows_.shapes[slot].factor;
    residual_.resize(rows_.dim);
    for (uint32_t i = 0; i < rows_.dim; ++i)
      residual_[i] = factor * static_cast<float>(numbers[i]) - request_.centre[i];
    estimator_.prepare(residual_.data());
    const auto neighbours = [&](uint32_t at, uint32_t* named) {
      return read_list(request_.lists, at, named);
    };
    const auto everything = [](uint32_t) { return true; };
    const auto ahead = [&](uint32_t at) {
      if (at < request_.lists.count) {
        prefetch(request_.lists.list(at));
        prefetch(request_.lists.list(at) + 16);
      }
    };
    walk(estimator_, neighbours, everything, ahead, request_.entries, request_.breadth, scratch_);
    near_.clear();
    for (const Candidate& one : scratch_.frontier.found())
      if (one.slot != slot && one.slot < rows_.count) near_.push_back(one.slot);
    uint32_t named[kMostDegree];
    const uint32_t degree = read_list(request_.lists, slot, named);
    for (uint32_t i = 0; i < degree; ++i)
      if (named[i] != slot && named[i] < rows_.count) near_.push_back(named[i]);
    pool_.clear();
    for (size_t i = 0; i < near_.size(); ++i) {
      if (i + 4 < near_.size()) fetch(near_[i + 4]);
      pool_.push_back({distance(slot, near_[i]), near_[i]});
    }
    settle(pool_);
  }

  // chosen_ becomes the robust prune of pool_.
  void prune(uint32_t slot) {
    const auto apart = [&](uint32_t a, uint32_t b) { return distance(a, b); };
    robust_prune(pool_, slot, request_.degree, request_.alpha, apart, chosen_);
  }

  void link_back(uint32_t from, uint32_t to) {
    if (from >= request_.lists.count) return;
    const Locks::Held held(locks_, from);
    uint32_t named[kMostDegree + 1];
    const uint32_t degree = read_list(request_.lists, from, named);
    for (uint32_t i = 0; i < degree; ++i)
      if (named[i] == to) return;
    uint32_t* list = request_.lists.list(from);
    if (degree < request_.lists.room) {
      store(list + 1 + degree, to);
      store(list, degree + 1);
      return;
    }
    named[degree] = to;
    score(from, named, degree + 1);
    prune(from);
    write_list(request_.lists, from, chosen_);
  }

  const Kernels& kernels_;
  const LinkRequest& request_;
  const Rows& rows_;
  Locks& locks_;
  Estimator estimator_;
  WalkScratch scratch_;
  std::vector<float> residual_;
  std::vector<uint32_t> near_;
  std::vector<Candidate> pool_;
  std::vector<uint32_t> chosen_;
};

template <class One>
void for_each_slot(const Kernels& kernels, const LinkRequest& request, const One& one) {
  Locks locks;
  std::atomic<uint64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_guard;
  const auto work = [&]() {
    try {
      Worker worker(kernels, request, locks);
      for (uint64_t first; (first = next.fetch_add(kSlotsAtOnce)) < request.slot_count;)
        for (uint64_t i = first; i < std::min(first + kSlotsAtOnce, request.slot_count); ++i)
          one(worker, request.slots[i]);
    } catch (...) {  // no memory: a thread must not end the process
      const std::lock_guard<std::mutex> guard(failure_guard);
      failure = std::current_exception();
      next = request.slot_count;
    }
  };
  std::vector<std::thread> helpers;
  for (uint32_t i = 1; i < request.threads && i * kSlotsAtOnce < request.slot_count; ++i)
    helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

void link_slots(const Kernels& kernels, const LinkRequest& request) {
  for_each_slot(kernels, request, [](Worker& worker, uint32_t slot) { worker.link(slot); });
}

void trim_lists(const Kernels& kernels, const LinkRequest& request) {
  for_each_slot(kernels, request, [](Worker& worker, uint32_t slot) { worker.trim(slot); });
}

void mark_reached(const Lists& lists, const Entries& entries, uint8_t* reached) {
  std::vector<uint32_t> open;
  const auto reach = [&](uint32_t slot) {
    if (slot >= lists.count || reached[slot]) return;
    reached[slot] = 1;
    open.push_back(slot);
  };
  for (uint32_t i = 0; i < entries.count; ++i) reach(entries.slots[i]);
  uint32_t named[kMostDegree];
  while (!open.empty()) {
    const uint32_t here = open.back();
    open.pop_back();
    const uint32_t degree = read_list(lists, here, named);
    for (uint32_t i = 0; i < degree; ++i) reach(named[i]);
  }
}

namespace {

constexpr uint32_t kNear = 8;    // of a list, that count: the first, which are the nearest
constexpr uint64_t kSteady = 8;  // edges added to those of each slot before shares are compared
constexpr uint32_t kSeeds = 64;  // of what a group leaves

// The edges of some slots to their nearest, both ways.
class NearEdges {
 public:
  NearEdges(const Lists& lists, const uint8_t* member) : lists_(lists), member_(member) {
    begin_.assign(lists.count + 1, 0);
    for_all([&](uint32_t, uint32_t to) { ++begin_[to]; });
    uint32_t total = 0;
    for (uint32_t& begin : begin_) begin = total += begin;  // where each ends: filled from there
    back_.resize(total);
    for_all([&](uint32_t from, uint32_t to) { back_[--begin_[to]] = from; });
  }

  template <class Visit>
  void visit(uint32_t slot, const Visit& visit) const {
    forward(slot, [&](uint32_t to) { visit(to); });
    for (uint32_t i = begin_[slot]; i < begin_[slot + 1]; ++i) visit(back_[i]);
  }

 private:
  template <class Visit>
  void forward(uint32_t slot, const Visit& visit) const {
    uint32_t named[kMostDegree];
    const uint32_t degree = std::min(kNear, read_list(lists_, slot, named));
    for (uint32_t i = 0; i < degree; ++i)
      if (named[i] < lists_.count && member_[named[i]]) visit(named[i]);
  }
  template <class Visit>
  void for_all(const Visit& visit) const {
    for (uint32_t slot = 0; slot < lists_.count; ++slot)
      if (member_[slot]) forward(slot, [&](uint32_t to) { visit(slot, to); });
  }

  const Lists& lists_;
  const uint8_t* member_;
  std::vector<uint32_t> begin_, back_;
};

// Groups are filled one after the other, each with what has the greatest share of its edges in it.
class Grouping {
 public:
  Grouping(const Lists& lists, std::vector<uint8_t>& waiting)
      : waiting_(waiting), edges_(lists, waiting.data()), left_(lists.count), drawn_(lists.count) {
    for (uint32_t slot = 0; slot < lists.count; ++slot)
      if (waiting[slot]) edges_.visit(slot, [&](uint32_t) { ++left_[slot]; });
  }

  void take(uint32_t slot) {
    waiting_[slot] = 0;
    edges_.visit(slot, [&](uint32_t near) {
      --left_[near];
      if (waiting_[near] && drawn_[near]++ == 0) drawn_to_.push_back(near);
    });
  }

  // What waits and has the greatest share of its edges in the group; false where nothing has any.
  bool next(uint32_t& slot) {
    size_t kept = 0;
    bool any = false;
    for (const uint32_t one : drawn_to_) {
      if (!waiting_[one]) continue;
      drawn_to_[kept++] = one;
      if (any && !greater(one, slot)) continue;
      slot = one;
      any = true;
    }
    drawn_to_.resize(kept);
    return any;
  }

  // Ends a group; those of what is left that have most edges into it may begin others.
  void end(std::vector<uint32_t>& seeds) {
    const auto more = [&](uint32_t a, uint32_t b) { return drawn_[a] > drawn_[b]; };
    std::stable_sort(drawn_to_.begin(), drawn_to_.end(), more);
    uint32_t begun = 0;
    for (const uint32_t one : drawn_to_) {
      if (waiting_[one] && begun++ < kSeeds) seeds.push_back(one);
      drawn_[one] = 0;
    }
    drawn_to_.clear();
  }

 private:
  bool greater(uint32_t a, uint32_t b) const {
    return drawn_[a] * (kSteady + left_[b]) > drawn_[b] * (kSteady + left_[a]);
  }

  std::vector<uint8_t>& waiting_;
  NearEdges edges_;
  std::vector<uint32_t> left_;   // edges to and from what is in no group yet
  std::vector<uint32_t> drawn_;  // edges to and from the group, of what waits
  std::vector<uint32_t> drawn_to_;
};

}  // namespace

void affinity_order(const Lists& lists, const Entries& entries, uint32_t together, uint32_t* slots,
                    uint64_t count) {
  std::vector<uint8_t> waiting(lists.count, 0);
  for (uint64_t i = 0; i < count; ++i) waiting[slots[i]] = 1;
  Grouping grouping(lists, waiting);
  std::vector<uint32_t> seeds(entries.slots, entries.slots + entries.count), rest;
  rest.assign(slots, slots + count);
  uint64_t next_seed = 0, next_rest = 0;
  const auto seed = [&]() {
    for (; next_seed < seeds.size(); ++next_seed)
      if (seeds[next_seed] < lists.count && waiting[seeds[next_seed]]) return seeds[next_seed];
    while (!waiting[rest[next_rest]]) ++next_rest;
    return rest[next_rest];
  };
  for (uint64_t placed = 0; placed < count; ++placed) {
    uint32_t one;
    if (placed % together == 0) grouping.end(seeds);
    if (placed % together == 0 || !grouping.next(one)) one = seed();
    grouping.take(one);
    slots[placed] = one;
  }
}

}  // namespace memdb
