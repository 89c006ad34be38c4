// Bindings of what makes keys: digests of texts, and ids.
#include "blake2b.h"
#include "objects.h"

namespace memdb_storage {
namespace {

// UTF-8 of a string, borrowed; what is not valid Unicode is a UnicodeEncodeError.
Bytes utf8(PyObject* text) {
  Py_ssize_t size;
  const char* data = PyUnicode_AsUTF8AndSize(text, &size);
  if (data == nullptr) throw nb::python_error();
  return {reinterpret_cast<const uint8_t*>(data), static_cast<size_t>(size)};
}

Blake2b hasher(nb::bytes key, size_t size) {
  const Bytes given = view(key.ptr());
  if (given.size > 64 || size < 1 || size > 64) throw nb::value_error("up to 64 bytes");
  return Blake2b(given, size);
}

nb::object digest(nb::bytes key, nb::bytes data, size_t size) {
  Blake2b hash = hasher(key, size);
  hash.update(view(data.ptr()));
  nb::object made = new_bytes(size);
  hash.finish(bytes_of(made));
  return made;
}

nb::object digest_of_parts(nb::bytes key, nb::bytes tag, nb::tuple parts, size_t size) {
  Blake2b hash = hasher(key, size);
  hash.update(view(tag.ptr()));
  for (nb::handle part : parts) {
    const Bytes text = utf8(part.ptr());
    const uint8_t length[4] = {
        static_cast<uint8_t>(text.size >> 24), static_cast<uint8_t>(text.size >> 16),
        static_cast<uint8_t>(text.size >> 8), static_cast<uint8_t>(text.size)};
    hash.update({length, 4});
    hash.update(text);
  }
  nb::object made = new_bytes(size);
  hash.finish(bytes_of(made));
  return made;
}

nb::list set_prefixes(nb::bytes key, nb::bytes tag, uint32_t field, nb::list texts) {
  const Items given(texts.ptr());
  nb::list found;
  for (size_t i = 0; i < given.size; ++i) {
    Blake2b hash = hasher(key, 8);
    hash.update(view(tag.ptr()));
    hash.update(view(given[i]));
    nb::object prefix = new_bytes(10);
    uint8_t* const out = bytes_of(prefix);
    out[0] = static_cast<uint8_t>(field >> 8);
    out[1] = static_cast<uint8_t>(field);
    hash.finish(out + 2);
    out[2] |= 0x80;
    found.append(prefix);
  }
  return found;
}

// Whether a string is valid Unicode. A short one keeps its UTF-8, a long one is not doubled.
bool encodes(PyObject* text) {
  constexpr Py_ssize_t kShort = 1024;
  Py_ssize_t size;
  bool valid;
  if (PyUnicode_GetLength(text) <= kShort)
    valid = PyUnicode_AsUTF8AndSize(text, &size) != nullptr;
  else
    valid = nb::steal(PyUnicode_AsUTF8String(text)).is_valid();
  if (valid) return true;
  if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) throw nb::python_error();
  PyErr_Clear();
  return false;
}

bool plain_strings(nb::handle values) {
  if (!PyTuple_Check(values.ptr())) throw nb::type_error("a tuple of strings, None and tuples");
  const Py_ssize_t count = PyTuple_Size(values.ptr());
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* const value = PyTuple_GetItem(values.ptr(), i);
    if (value == Py_None) continue;
    if (PyUnicode_CheckExact(value)) {
      if (!encodes(value)) return false;
    } else if (!PyTuple_CheckExact(value) || !plain_strings(value)) {
      return false;
    }
  }
  return true;
}

}  // namespace

void bind_keys(nb::module_& module) {
  using namespace nb::literals;
  module.def("digest", &digest, "key"_a, "data"_a, "size"_a);
  module.def("digest_of_parts", &digest_of_parts, "key"_a, "tag"_a, "parts"_a, "size"_a);
  module.def("set_prefixes", &set_prefixes, "key"_a, "tag"_a, "field"_a, "texts"_a);
  module.def("plain_strings", &plain_strings, "values"_a);
}

}  // namespace memdb_storage
