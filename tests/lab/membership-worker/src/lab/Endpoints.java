package lab;

import alluxio.conf.AlluxioConfiguration;
import alluxio.util.FormatUtils;

import com.google.gson.Gson;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** What the worker's HTTP ports answer: paths, status and content type are upstream's. */
final class Endpoints {
  static final String METRICS_JSON = "{\n  \"version\" : \"4.0.0\",\n  \"gauges\" : { },\n"
      + "  \"counters\" : { },\n  \"histograms\" : { },\n  \"meters\" : { },\n  \"timers\" : { }\n}\n";
  private static final String PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8";
  private static final String METRICS = "# HELP lab_worker_up The lab's worker has no metrics.\n"
      + "# TYPE lab_worker_up gauge\nlab_worker_up 1\n";

  private final UnderStore mStore;

  Endpoints(AlluxioConfiguration conf) {
    mStore = new UnderStore(conf);
  }

  /** Of {@code alluxio.web.WebServer}, by Jetty. */
  Http.Answer web(String method, String target) {
    switch (target.split("\\?", 2)[0]) {
      case "/metrics":
        return Http.Answer.found("/metrics/");
      case "/metrics/":
        return new Http.Answer(200, PROMETHEUS, METRICS);
      case "/metrics/prometheus/":
        return new Http.Answer(200, PROMETHEUS, METRICS);
      case "/metrics/json/":
        return new Http.Answer(200, "application/json", METRICS_JSON);
      case "/":
        return new Http.Answer(200, "text/html", "<title>The lab's worker</title>\n");
      default:
        return new Http.Answer(404, "text/html", "The lab's worker has no such page.\n");
    }
  }

  /** Of {@code S3HttpHandler}: there is nothing in it. */
  Http.Answer s3(String method, String target) {
    return new Http.Answer(404, "application/xml", "<Error><Code>NoSuchBucket</Code></Error>\n");
  }

  /** Of {@code HttpServerHandler}: what it does not know, or cannot do, it leaves unanswered. */
  Http.Answer http(String method, String target) throws IOException {
    String[] parts = target.split("\\?", 2);
    if (!method.equals("GET")) {
      return null;
    }
    switch (parts[0]) {
      case "/v1/health":
        return new Http.Answer(200, "text/plain", "worker is active");
      case "/v1/files":
        return files(path(parts));
      case "/v1/info":
        return json(Stream.of(new FileInfo(path(parts))));
      default:
        return null;
    }
  }

  private Http.Answer files(Path folder) throws IOException {
    List<FileInfo> infos = new ArrayList<>();
    try (Stream<Path> children = Files.list(folder)) {
      for (Path child : children.sorted().collect(Collectors.toList())) {
        infos.add(new FileInfo(child));
      }
    }
    return json(infos.stream());
  }

  private Path path(String[] parts) {
    for (String parameter : parts[1].split("&")) {
      if (parameter.startsWith("path=")) {
        String path = parameter.substring("path=".length())
            .replace("%2F", "/").replace("%3A", ":").replace("%3F", "?");
        return UnderStore.local(mStore.convert(path));
      }
    }
    throw new IllegalArgumentException("no path");
  }

  private static Http.Answer json(Stream<FileInfo> infos) {
    return new Http.Answer(200, "application/json",
        new Gson().toJson(infos.collect(Collectors.toList())));
  }

  /** By the names that upstream's {@code ResponseFileInfo} has in Gson's JSON. */
  private final class FileInfo {
    private final String mType;
    private final String mName;
    private final String mPath;
    private final String mUfsPath;
    private final long mLastModificationTimeMs;
    private final long mLength;
    private final String mHumanReadableFileSize;

    FileInfo(Path file) throws IOException {
      mType = Files.isDirectory(file) ? "directory" : "file";
      mName = file.getFileName() == null ? "" : file.getFileName().toString();
      mUfsPath = file.toString();
      mPath = mStore.alluxioPath(mUfsPath);
      mLastModificationTimeMs = Files.getLastModifiedTime(file).toMillis();
      mLength = Files.isDirectory(file) ? 0 : Files.size(file);
      mHumanReadableFileSize = FormatUtils.getSizeFromBytes(mLength);
    }
  }
}
