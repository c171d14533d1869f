# statehouse::grpc: gRPC, protobuf and Abseil as Debian has them: shared libraries, and their static archives for a program that asks for them
# with sh_link_grpc_statically(TARGET). The archives make a call a good deal cheaper (docs/decisions/0007-network-door.md). A program has the
# one or the other, never both: targets of ours name statehouse::grpc or statehouse::protobuf, and no library of gRPC's own.
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl REQUIRED)
find_package(PkgConfig REQUIRED)
option(SH_STATIC_GRPC "Link statehoused with the static archives of gRPC, protobuf and Abseil" ON)

# What stays shared: the C library's, and what has security updates of its own.
set(SH_GRPC_SHARED_LIBRARIES atomic c cares crypto dl m pthread re2 rt ssl z)
pkg_check_modules(SH_GRPC_PACKAGES QUIET grpc++ protobuf absl_synchronization)
set(SH_GRPC_ARCHIVES)
set(SH_GRPC_REST)
set(sh_grpc_names ${SH_GRPC_PACKAGES_STATIC_LIBRARIES})
list(REMOVE_DUPLICATES sh_grpc_names)
foreach(name ${sh_grpc_names})
  if(name IN_LIST SH_GRPC_SHARED_LIBRARIES)
    list(APPEND SH_GRPC_REST ${name})
    continue()
  endif()
  find_library(SH_GRPC_ARCHIVE_${name} lib${name}.a HINTS ${SH_GRPC_PACKAGES_LIBRARY_DIRS} ${SH_GRPC_PACKAGES_LIBDIR})
  mark_as_advanced(SH_GRPC_ARCHIVE_${name})
  list(APPEND SH_GRPC_ARCHIVES ${SH_GRPC_ARCHIVE_${name}})
endforeach()
if(SH_STATIC_GRPC AND (NOT SH_GRPC_ARCHIVES OR SH_GRPC_ARCHIVES MATCHES "NOTFOUND"))
  message(STATUS "Static archives of gRPC are missing: statehoused is linked with its shared libraries")
  set(SH_STATIC_GRPC OFF)
endif()

add_library(sh_grpc_archives INTERFACE)
# In any order: they use each other.
target_link_libraries(sh_grpc_archives INTERFACE -Wl,--start-group ${SH_GRPC_ARCHIVES} -Wl,--end-group ${SH_GRPC_REST} Threads::Threads)

# sh_grpc_library(NAME x SHARED …): the archives for a program that asked for them, else these.
function(sh_grpc_library)
  cmake_parse_arguments(ARG "" "NAME" "SHARED" ${ARGN})
  set(archives $<BOOL:$<TARGET_PROPERTY:SH_LINKS_GRPC_STATICALLY>>)
  add_library(sh_${ARG_NAME} INTERFACE)
  foreach(library ${ARG_SHARED})
    target_link_libraries(sh_${ARG_NAME} INTERFACE $<$<NOT:${archives}>:${library}>)
  endforeach()
  target_link_libraries(sh_${ARG_NAME} INTERFACE $<${archives}:sh_grpc_archives>)
  add_library(statehouse::${ARG_NAME} ALIAS sh_${ARG_NAME})
endfunction()
sh_grpc_library(NAME protobuf SHARED protobuf::libprotobuf)
sh_grpc_library(NAME grpc SHARED gRPC::grpc++ gRPC::gpr absl::synchronization)

function(sh_link_grpc_statically target)
  set_target_properties(${target} PROPERTIES SH_LINKS_GRPC_STATICALLY ${SH_STATIC_GRPC})
endfunction()
