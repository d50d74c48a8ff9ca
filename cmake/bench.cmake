# Each bench/*.cc is one Google Benchmark program.
find_package(benchmark REQUIRED)
file(GLOB benches CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/bench/*.cc)
foreach(source IN LISTS benches)
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${QB_LIBRARY_LAYERS} benchmark::benchmark benchmark::benchmark_main)
endforeach()
