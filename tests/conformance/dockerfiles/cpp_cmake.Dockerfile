FROM gcc:15 AS build
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked apt-get update && apt-get install -y cmake ninja-build
WORKDIR /work
COPY CMakeLists.txt .
COPY src/ src/
COPY include/ include/
RUN cmake -S . -B build -G Ninja \
      -DCMAKE_BUILD_TYPE=Release \
      -DVERSION="$(cat VERSION 2>/dev/null || echo 0)" \
 && cmake --build build --parallel
FROM build AS tests
RUN ctest --test-dir build --output-on-failure
FROM scratch AS artifacts
COPY --from=build /work/build/bin/* /
