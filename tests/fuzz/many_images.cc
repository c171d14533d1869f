#include "tests/fuzz/many_images.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <random>

#include "tests/support/long_runs.h"

namespace statehouse {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr int kImages = 200;  // There is but one thread.
#elif defined(__SANITIZE_ADDRESS__)
constexpr int kImages = 10'000;
#else
constexpr int kImages = 100'000;
#endif
constexpr unsigned kHangSeconds = 60;  // For 64 images: then one hangs.

int current_image = 0;

void NameImage(int signal_number) {
  char text[128];
  const int bytes =
      std::snprintf(text, sizeof text, "signal %d in image %d\n", signal_number, current_image);
  if (write(STDERR_FILENO, text, static_cast<size_t>(bytes)) < 0) _exit(3);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

class RandomImageSource final : public ImageSource {
 public:
  explicit RandomImageSource(int seed) : random_(static_cast<uint64_t>(seed)) {}
  uint64_t Next(bool* more) override {
    *more = true;
    return random_();
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace

int LiveWithManyImages(void (*live)(ImageSource& source)) {
  for (const int number : {SIGSEGV, SIGBUS, SIGABRT, SIGALRM}) signal(number, NameImage);
  const char* const only = std::getenv("STATEHOUSE_IMAGE");
  const int first = only == nullptr ? 0 : std::atoi(only);
  const int end = only == nullptr ? Rounds(kImages, 10'000'000) : first + 1;
  for (current_image = first; current_image < end; ++current_image) {
    if (current_image % 64 == 0) alarm(kHangSeconds);
    RandomImageSource source(current_image);
    live(source);
  }
  alarm(0);
  std::printf("%d images\n", end - first);
  return end - first;
}

}  // namespace statehouse
