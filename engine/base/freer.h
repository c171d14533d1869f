// Freer: what std::unique_ptr calls for an object of a C library:
//   std::unique_ptr<BIO, Freer<BIO_free>>.
#pragma once

namespace statehouse {

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* owned) const {
    kFree(owned);
  }
};

}  // namespace statehouse
