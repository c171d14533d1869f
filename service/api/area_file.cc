#include "service/api/area_file.h"

#include <filesystem>
#include <system_error>

namespace statehouse {

StatusOr<std::string> ResolveAreaFile(const std::string& root, const std::string& file) {
  const auto refuse = [&file](const std::string& why) {
    return Status(Reason::kBackingInvalid, "area file \"" + file + "\": " + why);
  };
  if (root.empty()) {
    return refuse("this service allows no file-backed areas; its operator can set areas.file_root");
  }
  if (file.find('\0') != std::string::npos) return refuse("the path holds a zero byte");
  std::error_code error;
  const std::filesystem::path base = std::filesystem::canonical(root, error);
  if (error) return refuse("areas.file_root cannot be resolved: " + error.message());
  const std::filesystem::path wanted(file);
  const std::filesystem::path full =
      std::filesystem::canonical(wanted.is_absolute() ? wanted : base / wanted, error);
  // One answer for what is missing and for what lies outside: the service is no oracle for its file
  // system.
  const std::string outside = "no such file lies below areas.file_root";
  if (error) return refuse(outside);
  auto part = full.begin();
  for (const std::filesystem::path& expected : base) {
    if (part == full.end() || *part != expected) return refuse(outside);
    ++part;
  }
  if (part == full.end()) return refuse(outside);
  if (!std::filesystem::is_regular_file(full, error) || error) {
    return refuse("it is no regular file");
  }
  return full.string();
}

}  // namespace statehouse
