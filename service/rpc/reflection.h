// Reflection: answers about the protos of this binary, for tools such as grpcurl.
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "grpc/reflection/v1/reflection.pb.h"

namespace statehouse {

// The services that this binary serves, by full name.
std::vector<std::string> ServedServices();

// One reflection stream's memory: which files it has sent. Owned by its call; one thread.
class ReflectionStream final {
 public:
  // v1 and v1alpha have one wire form, so the messages of v1 serve both.
  grpc::reflection::v1::ServerReflectionResponse Answer(
      const grpc::reflection::v1::ServerReflectionRequest& request);

 private:
  std::unordered_set<std::string> sent_;  // Names of files.
};

}  // namespace statehouse
