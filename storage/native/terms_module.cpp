// Bindings of what counts and inverts terms.
#include <nanobind/ndarray.h>

#include <algorithm>

#include "objects.h"
#include "terms.h"

namespace memdb_storage {
namespace {

template <class T, int N>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

nb::object counted(const std::vector<Counted>& terms, size_t length) {
  nb::object hashes = new_bytes(kHashBytes * terms.size()), tfs = new_bytes(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    write_hash(bytes_of(hashes) + kHashBytes * i, terms[i].hash);
    bytes_of(tfs)[i] = terms[i].tf;
  }
  return new_tuple({hashes, tfs, new_int(length)});
}

nb::list count_terms(nb::list tokens, nb::list counts, In<int64_t, 1> starts, In<int64_t, 1> sizes,
                     In<int64_t, 1> numbers, In<uint8_t, 2> hashes) {
  const Items given(tokens.ptr()), per_text(counts.ptr());
  if (hashes.shape(1) != kHashBytes || starts.shape(0) != sizes.shape(0))
    throw nb::value_error("starts, sizes: (tokens,); hashes: (terms, 12)");
  nb::list found;
  std::vector<Hash> of_text;
  std::vector<Counted> terms;
  size_t at = 0;
  for (size_t text = 0; text < per_text.size; ++text) {
    of_text.clear();
    const size_t stop = at + u32_of(per_text[text]);
    if (stop > given.size) throw nb::value_error("counts: of all tokens together");
    for (; at < stop; ++at) {
      const size_t token = u32_of(given[at]);
      if (token >= starts.shape(0)) throw nb::value_error("an unknown token");
      const int64_t start = starts.data()[token], size = sizes.data()[token];
      const int64_t known = static_cast<int64_t>(numbers.shape(0));
      if (start < 0 || size < 0 || start > known || size > known - start)
        throw nb::value_error("starts, sizes: within numbers");
      for (int64_t i = start; i < start + size; ++i) {
        const int64_t number = numbers.data()[i];
        if (number < 0 || number >= static_cast<int64_t>(hashes.shape(0)))
          throw nb::value_error("an unknown term");
        of_text.push_back(read_hash(hashes.data() + kHashBytes * number));
      }
    }
    const size_t length = of_text.size();
    count_hashes(&of_text, &terms);
    found.append(counted(terms, length));
  }
  return found;
}

nb::object posting_key(uint32_t segment, const Posting& first) {
  nb::object key = new_bytes(8 + kHashBytes);
  uint8_t* const out = bytes_of(key);
  for (int i = 0; i < 4; ++i) {
    out[i] = static_cast<uint8_t>(segment >> (24 - 8 * i));
    out[4 + kHashBytes + i] = static_cast<uint8_t>(first.row >> (24 - 8 * i));
  }
  write_hash(out + 4, first.hash);
  return key;
}

nb::list invert(uint32_t segment, nb::list rows, nb::list forwards, nb::bytes lengths) {
  const Items numbers(rows.ptr()), given(forwards.ptr());
  const Bytes codes = view(lengths.ptr());
  if (numbers.size != given.size || codes.size != given.size)
    throw nb::value_error("a forward row and a length for each row");
  std::vector<Posting> postings;
  postings.reserve(given.size * 16);
  for (size_t i = 0; i < given.size; ++i)
    if (!read_forward(view(given[i]), u32_of(numbers[i]), codes.data[i], &postings))
      corrupt("a forward row has an impossible length");
  std::sort(postings.begin(), postings.end());
  nb::list pairs;
  for (size_t at = 0; at < postings.size();) {
    const size_t end = value_end(postings, at);
    nb::object payload = new_bytes(kPostingBytes * (end - at));
    write_postings(&postings[at], end - at, bytes_of(payload));
    pairs.append(new_tuple({posting_key(segment, postings[at]), payload}));
    at = end;
  }
  return pairs;
}

}  // namespace

void bind_terms(nb::module_& module) {
  using namespace nb::literals;
  const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
  module.def("count_terms", &count_terms, "tokens"_a, "counts"_a, array("starts"), array("sizes"),
             array("numbers"), array("hashes"));
  module.def("invert", &invert, "segment"_a, "rows"_a, "forwards"_a, "lengths"_a);
}

}  // namespace memdb_storage
