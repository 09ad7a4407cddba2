//! What was created in an hour, minute by minute.

use bullwark::record::creations;

use crate::record_enqueue::workspace;
use crate::stage::Stage;

#[tokio::test]
async fn what_is_given_back_goes_to_the_minute_that_it_was_taken_from() {
    let stage = Stage::new().await;
    let (record, id) = (&stage.record, workspace(&stage).await);
    let take = async |wanted| creations::take(record, id, 100, wanted, 0).await.unwrap();
    let first = take(10).await;
    let minute = first.minute.unwrap();
    // It was a while ago, and others have taken since.
    stage
        .execute("UPDATE bullwark.creations SET minutes = ARRAY[minutes[1] - 2]".to_owned())
        .await;
    let later = take(5).await;
    assert_eq!((later.used, take(0).await.minute), (15, None));
    creations::give_back(record, id, minute - 2, 4)
        .await
        .unwrap();
    let counts = async || {
        stage
            .scalar::<Vec<i64>>("SELECT counts FROM bullwark.creations".to_owned())
            .await
    };
    assert_eq!(counts().await, [6, 5]);
    // More than there is, and to a minute that does not count any more.
    creations::give_back(record, id, minute - 2, 40)
        .await
        .unwrap();
    creations::give_back(record, id, minute - 70, 4)
        .await
        .unwrap();
    assert_eq!(counts().await, [0, 5]);
}
