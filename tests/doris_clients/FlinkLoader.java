import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;
import org.apache.doris.flink.cfg.DorisExecutionOptions;
import org.apache.doris.flink.cfg.DorisOptions;
import org.apache.doris.flink.cfg.DorisReadOptions;
import org.apache.doris.flink.rest.models.RespContent;
import org.apache.doris.flink.sink.DorisCommittable;
import org.apache.doris.flink.sink.HttpUtil;
import org.apache.doris.flink.sink.batch.DorisBatchStreamLoad;
import org.apache.doris.flink.sink.committer.DorisCommitter;
import org.apache.doris.flink.sink.writer.DorisStreamLoad;
import org.apache.doris.flink.sink.writer.LabelGenerator;
import org.apache.flink.api.connector.sink2.Committer;

/** Drives the loaders of the Flink connector, without Flink; prints one line for each step. */
public final class FlinkLoader {
    private final String frontend;
    private final String user;
    private final String password;
    private final String table;

    private FlinkLoader(String frontend, String user, String password, String table) {
        this.frontend = frontend;
        this.user = user;
        this.password = password;
        this.table = table;
    }

    /** Arguments: FE as host:port, user, password, database.table. */
    public static void main(String[] arguments) {
        FlinkLoader loader =
                new FlinkLoader(arguments[0], arguments[1], arguments[2], arguments[3]);
        step("plain", () -> loader.load("flink-plain", false, 1, 2).getStatus());
        step("again", () -> {
            RespContent answer = loader.load("flink-plain", false, 3);
            return answer.getStatus() + " " + answer.getExistingJobStatus();
        });
        step("unfit", () -> {
            RespContent answer = loader.load("flink-unfit", false, "{\"id\": \"none\"}");
            return answer.getStatus() + " " + (answer.getErrorURL() != null);
        });
        step("committed", () -> {
            RespContent first = loader.load("flink-committed", true, 10, 11);
            loader.commit(first.getTxnId());
            return first.getStatus() + " " + first.getTwoPhaseCommit();
        });
        step("committed twice", () -> {
            RespContent first = loader.load("flink-twice", true, 12);
            loader.commit(first.getTxnId());
            loader.commit(first.getTxnId());
            return first.getStatus();
        });
        step("aborted", () -> {
            RespContent first = loader.load("flink-aborted", true, 20);
            loader.stream(true, "flink").abortTransaction(first.getTxnId());
            return first.getStatus();
        });
        step("left behind", () -> {
            DorisStreamLoad stream = loader.stream(true, "flink-left");
            String label = new LabelGenerator("flink-left", true, loader.table, 0).generateTableLabel(1);
            String status = loader.send(stream, label, List.of("{\"id\": 30}")).getStatus();
            loader.stream(true, "flink-left").abortPreCommit("flink-left", 1);
            return status;
        });
        step("batch by the FE", () -> loader.batch("flink-batch-fe", true, 100));
        step("batch by a BE", () -> loader.batch("flink-batch-be", false, 200));
        FlinkLoader stranger = new FlinkLoader(arguments[0], arguments[1], "wrong", arguments[3]);
        step("wrong password", () -> stranger.load("flink-stranger", false, 40).getStatus());
        System.exit(0);
    }

    /** In a thread of its own: the loader interrupts the one that writes when a load fails. */
    private static void step(String name, Callable<String> action) {
        Thread thread = new Thread(() -> {
            String outcome;
            try {
                outcome = action.call();
            } catch (Exception | AssertionError problem) {
                outcome = "raised " + problem;
            }
            System.out.println(name + ": " + outcome.replace('\n', ' '));
        });
        thread.start();
        try {
            thread.join();
        } catch (InterruptedException problem) {
            throw new IllegalStateException(problem);
        }
    }

    private RespContent load(String label, boolean twoPhases, int... ids) throws Exception {
        return send(stream(twoPhases, label), label, java.util.Arrays.stream(ids)
                .mapToObj(id -> "{\"id\": " + id + ", \"name\": \"n\"}").toList());
    }

    private RespContent load(String label, boolean twoPhases, String row) throws Exception {
        return send(stream(twoPhases, label), label, List.of(row));
    }

    private RespContent send(DorisStreamLoad stream, String label, List<String> rows)
            throws Exception {
        stream.startLoad(label, false);
        for (String row : rows) {
            stream.writeRecord(row.getBytes(StandardCharsets.UTF_8));
        }
        return stream.stopLoad();
    }

    private DorisStreamLoad stream(boolean twoPhases, String prefix) {
        return new DorisStreamLoad(
                frontend,
                options(true),
                execution(twoPhases, prefix),
                new LabelGenerator(prefix, twoPhases, table, 0),
                new HttpUtil().getHttpClient());
    }

    private String batch(String prefix, boolean byFrontend, int firstId) throws Exception {
        DorisBatchStreamLoad loader = new DorisBatchStreamLoad(
                options(byFrontend),
                DorisReadOptions.builder().build(),
                execution(false, prefix),
                new LabelGenerator(prefix, false, 0),
                0);
        String[] names = table.split("\\.");
        while (!loader.isLoadThreadAlive()) {
            Thread.sleep(10);
        }
        for (int id = firstId; id < firstId + 50; id++) {
            byte[] row = ("{\"id\": " + id + "}").getBytes(StandardCharsets.UTF_8);
            loader.writeRecord(names[0], names[1], row);
        }
        loader.checkpointFlush();
        loader.close();
        Throwable problem = loader.getException().get();
        return problem == null ? "done" : "failed " + problem;
    }

    private void commit(long transaction) throws Exception {
        DorisCommitter committer = new DorisCommitter(
                options(true), DorisReadOptions.builder().build(), execution(true, "flink"));
        committer.commit(List.of(new Request(
                new DorisCommittable(frontend, table.split("\\.")[0], transaction))));
        committer.close();
    }

    private DorisOptions options(boolean byFrontend) {
        return DorisOptions.builder()
                .setFenodes(frontend)
                .setTableIdentifier(table)
                .setUsername(user)
                .setPassword(password)
                .setAutoRedirect(byFrontend)
                .build();
    }

    private static DorisExecutionOptions execution(boolean twoPhases, String prefix) {
        Properties properties = new Properties();
        properties.setProperty("format", "json");
        properties.setProperty("read_json_by_line", "true");
        properties.setProperty("strict_mode", "true");
        DorisExecutionOptions.Builder builder = DorisExecutionOptions.builder()
                .setLabelPrefix(prefix)
                .setMaxRetries(0)
                .setStreamLoadProp(properties);
        return (twoPhases ? builder.enable2PC() : builder.disable2PC()).build();
    }

    private record Request(DorisCommittable committable)
            implements Committer.CommitRequest<DorisCommittable> {
        @Override
        public DorisCommittable getCommittable() {
            return committable;
        }

        @Override
        public int getNumberOfRetries() {
            return 0;
        }

        @Override
        public void signalFailedWithKnownReason(Throwable problem) {
            throw new AssertionError("failed: " + problem);
        }

        @Override
        public void signalFailedWithUnknownReason(Throwable problem) {
            throw new AssertionError("failed: " + problem);
        }

        @Override
        public void retryLater() {
            throw new AssertionError("is to be repeated");
        }

        @Override
        public void updateAndRetryLater(DorisCommittable committable) {
            throw new AssertionError("is to be repeated");
        }

        @Override
        public void signalAlreadyCommitted() {
            System.out.println("was committed already");
        }
    }
}
